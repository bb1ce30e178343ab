CREATE TABLE customers (customer TEXT, name TEXT);
INSERT INTO customers VALUES ('c0', 'ann');
INSERT INTO customers VALUES ('c1', 'bob');
INSERT INTO customers VALUES ('c2', 'cid');
INSERT INTO customers VALUES ('c4', 'eve');
