-- A small catalogue and two customers. Identity columns count up from 1 in this order; tests find rows by
-- sku and email all the same.
INSERT INTO customers (email, name) VALUES
    ('ada@example.com', 'Ada Lovelace'),
    ('grace@example.com', 'Grace Hopper');

INSERT INTO products (sku, name, price_cents) VALUES
    ('TEA-GREEN', 'Green tea, 100 g', 690),
    ('TEA-BLACK', 'Black tea, 100 g', 590),
    ('TEA-MINT', 'Peppermint tea, 50 g', 390),
    ('CUP-SMALL', 'Small cup', 1200),
    ('CUP-LARGE', 'Large cup', 1500),
    ('POT-IRON', 'Iron teapot', 4900),
    ('POT-GLASS', 'Glass teapot', 2900),
    ('TIN-1', 'Tea tin', 800);

INSERT INTO stock_movements (product_id, delta, reason)
SELECT id, CASE sku WHEN 'POT-IRON' THEN 5 WHEN 'POT-GLASS' THEN 12 ELSE 100 END, 'delivery'
FROM products
WHERE sku <> 'TIN-1'
ORDER BY id;
