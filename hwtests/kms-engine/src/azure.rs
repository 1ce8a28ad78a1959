use crate::{
    call::{Call, Reply},
    engine::Shared,
    fault::Fault,
};
use serde_json::json;
#[derive(Default)]
pub(crate) struct Azure;
impl Azure {
    pub(crate) fn set_enabled(&self, _: &str, _: Option<&str>, _: bool) -> bool {
        false
    }
}
pub(crate) fn operation(_: &Call) -> String {
    String::new()
}
pub(crate) fn fails(_: &Call, _: &Fault) -> Option<Reply> {
    None
}
pub(crate) async fn answer(_: &Shared, _: &Call) -> Reply {
    Reply::json(404, "application/json", &json!({}))
}
