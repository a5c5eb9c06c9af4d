CREATE TABLE seed (name text);
INSERT INTO seed VALUES ('begun');
SELECT pg_sleep(20);
INSERT INTO seed VALUES ('done');
