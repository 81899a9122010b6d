CREATE TABLE customers (id INTEGER);
