CREATE TABLE payments (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id     bigint      NOT NULL REFERENCES orders (id),
    amount_cents bigint      NOT NULL,
    method       text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- An order is paid once, and in full.
    CONSTRAINT payments_order_unique UNIQUE (order_id),
    CONSTRAINT payments_method CHECK (method IN ('card', 'transfer', 'voucher'))
);

CREATE FUNCTION check_payment() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    due bigint;
BEGIN
    SELECT total_cents INTO due FROM orders WHERE id = NEW.order_id;
    IF NEW.amount_cents IS DISTINCT FROM due THEN
        RAISE EXCEPTION 'order % costs % cents, not %', NEW.order_id, due, NEW.amount_cents
            USING ERRCODE = 'check_violation', CONSTRAINT = 'payments_in_full';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER payments_in_full BEFORE INSERT OR UPDATE ON payments
    FOR EACH ROW EXECUTE FUNCTION check_payment();
