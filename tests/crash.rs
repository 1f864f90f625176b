//! Services that are killed under load while the provider loses answers. `make storm` runs the same for longer.

use anyhow::Result;
use e2e::{Profile, Storm};

#[tokio::test]
async fn what_the_killed_left_is_finished_by_the_living() -> Result<()> {
    let storm = Storm { kills: 5, ..Storm::default() };
    let mut world = storm.world(Profile::Debug).start().await?;
    storm.blow(&mut world).await?.figures().verdict()?;
    world.finish().await
}
