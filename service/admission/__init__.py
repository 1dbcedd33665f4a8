"""What judges a submission: from the JSON of a body to jobs, or to every reason why there will be none.

It looks at the run database alone and knows no HTTP: what it refuses it raises as a `Refused`, of which the API makes
an answer. Only the words of a remedy name a route, for they are what the user reads.
"""
