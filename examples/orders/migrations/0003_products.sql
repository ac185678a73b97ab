CREATE TABLE products (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku         text        NOT NULL,
    name        text        NOT NULL,
    price_cents bigint      NOT NULL,
    -- Changed by stock movements only.
    stock       bigint      NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT products_sku_unique UNIQUE (sku),
    CONSTRAINT products_sku_shape CHECK (sku ~ '^[A-Z0-9]+(-[A-Z0-9]+)*$'),
    CONSTRAINT products_name_not_blank CHECK (btrim(name) <> ''),
    CONSTRAINT products_price_positive CHECK (price_cents > 0),
    CONSTRAINT products_stock_not_negative CHECK (stock >= 0)
);

-- Search by any part of the name; needs pg_trgm.
CREATE INDEX products_name_trgm ON products USING gin (name gin_trgm_ops);

CREATE TRIGGER products_touch BEFORE UPDATE ON products
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
