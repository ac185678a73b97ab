CREATE TABLE order_lines (
    order_id         bigint NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    product_id       bigint NOT NULL REFERENCES products (id),
    quantity         bigint NOT NULL,
    -- What the product cost when it was ordered.
    unit_price_cents bigint NOT NULL,
    PRIMARY KEY (order_id, product_id),
    CONSTRAINT order_lines_quantity_positive CHECK (quantity > 0),
    CONSTRAINT order_lines_price_positive CHECK (unit_price_cents > 0)
);

CREATE INDEX order_lines_product ON order_lines (product_id);

CREATE FUNCTION add_line_to_total() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        UPDATE orders SET total_cents = total_cents - OLD.quantity * OLD.unit_price_cents
        WHERE id = OLD.order_id;
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        UPDATE orders SET total_cents = total_cents + NEW.quantity * NEW.unit_price_cents
        WHERE id = NEW.order_id;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER order_lines_total AFTER INSERT OR UPDATE OR DELETE ON order_lines
    FOR EACH ROW EXECUTE FUNCTION add_line_to_total();
