# Read by the entry point of the postgres image when its volume is empty: two databases, each with a role of its own.
# Encoding and order of text are said here, as `barlow up` has them: those of the cluster depend on the image's locale.
psql -v ON_ERROR_STOP=1 -v barlow="$BARLOW_DATABASE_PASSWORD" -v mlflow="$MLFLOW_DATABASE_PASSWORD" \
    --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
CREATE ROLE barlow LOGIN PASSWORD :'barlow';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE barlow OWNER barlow TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
CREATE DATABASE mlflow OWNER mlflow TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
REVOKE ALL ON DATABASE barlow, mlflow FROM PUBLIC;
SQL
