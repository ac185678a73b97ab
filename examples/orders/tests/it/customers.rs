//! Customers through the API: the simplest style, one shop per test and a few requests.

use orders::customers::Customer;
use serde_json::json;

use crate::support::Shop;

#[testenv::test]
async fn a_customer_signs_up_and_is_found(shop: Shop) {
    let created =
        shop.post("/customers", json!({ "email": "alan@example.com", "name": "Alan Turing" })).await;
    assert_eq!(created.status, 201);
    let created: Customer = created.ok();
    let found: Customer = shop.get(&format!("/customers/{}", created.id)).await.ok();
    assert_eq!(found, created);
    assert!(found.created_at.ends_with('Z'), "{}", found.created_at);
}

#[testenv::test]
async fn an_email_address_is_taken_whatever_its_case(shop: Shop) {
    let again = shop.post("/customers", json!({ "email": "ADA@Example.com", "name": "Another Ada" })).await;
    again.is_refused(409, "email_taken");
}

#[testenv::test]
async fn nonsense_is_refused(shop: Shop) -> anyhow::Result<()> {
    for (email, name) in [("nobody", "Nobody"), ("a b@example.com", "Blank"), ("c@example.com", "  ")] {
        shop.post("/customers", json!({ "email": email, "name": name })).await.is_refused(422, "invalid");
    }
    shop.post("/customers", json!({ "email": "d@example.com" })).await.is_refused(422, "invalid");
    // Only the two of the seed.
    assert_eq!(shop.count("customers").await?, 2);
    Ok(())
}

#[testenv::test]
async fn nobody_is_found_where_nobody_is(shop: Shop) {
    shop.get("/customers/4711").await.is_refused(404, "not_found");
}

/// The same address as in [`a_customer_signs_up_and_is_found`]: tests share nothing, so nothing clashes.
#[testenv::test]
async fn two_tests_may_sign_up_the_same_customer(shop: Shop) {
    shop.sign_up("alan@example.com").await;
}
