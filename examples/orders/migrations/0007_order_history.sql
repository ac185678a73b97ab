-- Every change of an order's status, written by the database itself.
CREATE TABLE order_history (
    order_id    bigint       NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    from_status order_status,
    to_status   order_status NOT NULL,
    changed_at  timestamptz  NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX order_history_order ON order_history (order_id, changed_at);

CREATE FUNCTION check_status_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.status, NEW.status) NOT IN
        (('pending', 'paid'), ('pending', 'cancelled'), ('paid', 'shipped'))
    THEN
        RAISE EXCEPTION 'an order cannot go from % to %', OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'orders_status_change';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER orders_status_change BEFORE UPDATE OF status ON orders
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
    EXECUTE FUNCTION check_status_change();

CREATE FUNCTION record_status() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO order_history (order_id, to_status) VALUES (NEW.id, NEW.status);
    ELSIF OLD.status IS DISTINCT FROM NEW.status THEN
        INSERT INTO order_history (order_id, from_status, to_status) VALUES (NEW.id, OLD.status, NEW.status);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER orders_record_status AFTER INSERT OR UPDATE OF status ON orders
    FOR EACH ROW EXECUTE FUNCTION record_status();
