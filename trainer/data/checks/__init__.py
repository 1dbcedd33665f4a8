"""What is wrong with the images of a data set, told before anything is learned from them."""
