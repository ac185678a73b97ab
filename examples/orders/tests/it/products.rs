//! Products through the API.

use orders::products::Product;
use serde_json::json;

use crate::support::Shop;

#[testenv::test]
async fn a_new_product_has_no_stock_until_a_delivery(shop: Shop) {
    let body = json!({ "sku": "TEA-WHITE", "name": "White tea, 50 g", "price_cents": 1290 });
    let created = shop.post("/products", body).await;
    assert_eq!(created.status, 201);
    let created: Product = created.ok();
    assert_eq!(created.stock, 0);

    let path = format!("/products/{}/deliveries", created.id);
    let delivered: Product = shop.post(&path, json!({ "quantity": 30 })).await.ok();
    assert_eq!(delivered, Product { stock: 30, ..created });
}

#[testenv::test]
async fn a_delivery_brings_at_least_one(shop: Shop) -> anyhow::Result<()> {
    let pot = shop.product("POT-IRON").await?;
    let path = format!("/products/{}/deliveries", pot.id);
    for quantity in [0, -3] {
        shop.post(&path, json!({ "quantity": quantity })).await.is_refused(422, "invalid");
    }
    assert_eq!(shop.product("POT-IRON").await?, pot);
    Ok(())
}

#[testenv::test]
async fn a_sku_is_taken_once_and_has_a_shape(shop: Shop) {
    let product = |sku| json!({ "sku": sku, "name": "Something", "price_cents": 100 });
    shop.post("/products", product("TEA-MINT")).await.is_refused(409, "sku_taken");
    for sku in ["tea", "TEA_2", "-", "TEA-", ""] {
        shop.post("/products", product(sku)).await.is_refused(422, "invalid");
    }
}

#[testenv::test]
async fn a_price_is_at_least_one_cent(shop: Shop) -> anyhow::Result<()> {
    let pot = shop.product("POT-IRON").await?;
    let path = format!("/products/{}/price", pot.id);
    shop.put(&path, json!({ "price_cents": 0 })).await.is_refused(422, "invalid");
    let changed: Product = shop.put(&path, json!({ "price_cents": 5200 })).await.ok();
    assert_eq!(changed, Product { price_cents: 5200, ..pot });
    Ok(())
}

#[testenv::test]
async fn the_search_finds_parts_of_names_in_any_case(shop: Shop) {
    let found: Vec<Product> = shop.get("/products?search=TEAPOT").await.ok();
    let skus: Vec<_> = found.iter().map(|product| product.sku.as_str()).collect();
    assert_eq!(skus, ["POT-GLASS", "POT-IRON"]);
    let all: Vec<Product> = shop.get("/products").await.ok();
    assert_eq!(all.len(), 8);
}

#[testenv::test]
async fn the_search_takes_wildcards_for_what_they_are(shop: Shop) {
    let body = json!({ "sku": "SALE", "name": "100% off_season", "price_cents": 1 });
    let sale: Product = shop.post("/products", body).await.ok();
    for search in ["%25", "_s"] {
        let found: Vec<Product> = shop.get(&format!("/products?search={search}")).await.ok();
        assert_eq!(found, std::slice::from_ref(&sale), "searching {search:?}");
    }
}

#[testenv::test]
async fn an_unknown_product_is_not_found(shop: Shop) {
    shop.get("/products/999").await.is_refused(404, "not_found");
    shop.put("/products/999/price", json!({ "price_cents": 1 })).await.is_refused(404, "not_found");
    shop.post("/products/999/deliveries", json!({ "quantity": 1 })).await.is_refused(404, "not_found");
}
