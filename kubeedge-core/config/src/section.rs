//! How sections of a configuration are written down.

/// A section: its keys with Go's defaults, then those that have none and are not printed by
/// `--defaultconfig`.
macro_rules! section {
    (
        $(#[$meta:meta])* $name:ident {
            $($(#[$with:meta])* $field:ident: $type:ty = $default:expr,)*
        }
        $(optional { $($(#[$without:meta])* $option:ident: $inner:ty,)* })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            $($(#[$with])* pub $field: $type,)*
            $($($(#[$without])* #[serde(skip_serializing_if = "Option::is_none")] pub $option: Option<$inner>,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* $($($option: None,)*)? }
            }
        }
    };
}

pub(super) use section;
