CREATE FUNCTION return_stock() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stock_movements (product_id, order_id, delta, reason)
    SELECT product_id, order_id, quantity, 'cancel'
    FROM order_lines
    WHERE order_id = NEW.id
    -- The same order in which they were reserved, so that two orders never wait for each other.
    ORDER BY product_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER orders_cancel_returns_stock AFTER UPDATE OF status ON orders
    FOR EACH ROW WHEN (OLD.status <> 'cancelled' AND NEW.status = 'cancelled')
    EXECUTE FUNCTION return_stock();
