-- Run once, by the image's entry point, when the cluster is new. The services' role owns its
-- database and is no superuser: row-level security, which superusers ignore, holds for it.
\set ON_ERROR_STOP on
\getenv password PENSTOCK_POSTGRES_PASSWORD
create role penstock login createrole createdb password :'password';
create database penstock owner penstock;
