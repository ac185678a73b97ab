//! Tests that fail, on purpose.

use crate::support::Shop;

/// A panic is what this test wants, so its servers are not kept for anybody to look at.
#[testenv::test]
#[should_panic(expected = "out_of_stock")]
async fn a_refusal_fails_the_test_with_what_the_service_said(shop: Shop) {
    let pot = shop.product("POT-IRON").await.unwrap();
    shop.order(1, "k", &[(pot.id, pot.stock + 1)]).await;
}

/// Fails, to show what a failure looks like: the server's last log lines, and how to connect to the very servers
/// that the test used, with the order still in them.
///
/// `cargo nextest run -p orders --features show-failure debugging_story`
#[cfg(feature = "show-failure")]
#[testenv::test]
async fn debugging_story(shop: Shop) -> anyhow::Result<()> {
    let pot = shop.product("POT-IRON").await?;
    shop.order(shop.ada().await?, "k", &[(pot.id, 2)]).await;
    // PostgreSQL logs what it refuses.
    shop.place(shop.ada().await?, "more", &[(pot.id, 4)]).await.is_refused(409, "out_of_stock");
    let left = shop.product("POT-IRON").await?.stock;
    assert_eq!(left, 5, "an order should not take any stock, says this test, wrongly");
    Ok(())
}
