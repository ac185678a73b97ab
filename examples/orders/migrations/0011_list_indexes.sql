-- Pages of orders are read by id, newest first, of one customer or of one status.
CREATE INDEX orders_by_customer ON orders (customer_id, id DESC);
CREATE INDEX orders_by_status ON orders (status, id DESC);
