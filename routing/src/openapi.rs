//! OpenAPI schemas of the types that are text on the wire but not inside.

use alloc::string::String;

use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

macro_rules! text_schema {
    ($($name:ty),*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                String::schema()
            }
        }

        impl ToSchema for $name {}
    )*};
}

text_schema!(
    crate::id::Environment,
    crate::id::SiteId,
    crate::host::HostPattern,
    crate::routes::Span,
    crate::rollout::Hours,
    crate::rollout::Step
);
