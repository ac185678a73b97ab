-- Stock is a ledger: a movement is written once, and products.stock is their sum. A movement that would take
-- more than there is violates products_stock_not_negative, so nobody can sell what is not there.
CREATE TABLE stock_movements (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id bigint      NOT NULL REFERENCES products (id),
    order_id   bigint      REFERENCES orders (id),
    delta      bigint      NOT NULL,
    reason     text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT stock_movements_moves CHECK (delta <> 0),
    CONSTRAINT stock_movements_reason CHECK (reason IN ('delivery', 'order', 'cancel', 'correction'))
);

CREATE INDEX stock_movements_product ON stock_movements (product_id, id);

CREATE FUNCTION apply_stock_movement() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE products SET stock = stock + NEW.delta WHERE id = NEW.product_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER stock_movements_apply AFTER INSERT ON stock_movements
    FOR EACH ROW EXECUTE FUNCTION apply_stock_movement();

CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER stock_movements_append_only BEFORE UPDATE OR DELETE ON stock_movements
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
