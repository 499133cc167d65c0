//! The paths that a file names, and what it defines.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, Macro, UseTree, Visibility};

/// A path as it stands in a module.
#[derive(Clone, Debug)]
pub struct Named {
    /// Modules within the file, where it stands in an inline one.
    pub inline: Vec<String>,
    /// Its segments; a glob ends with `*`.
    pub segments: Vec<String>,
}

/// An item that a module gives out under a name of its own.
#[derive(Clone, Debug)]
pub struct ReExport {
    /// Modules within the file.
    pub inline: Vec<String>,
    /// The name; `*` for a glob.
    pub name: String,
    /// Where it comes from.
    pub segments: Vec<String>,
}

/// What one file says.
#[derive(Default)]
pub struct File {
    /// Modules in files of their own, with the name of the file where an attribute gives it.
    pub modules: Vec<(String, Option<String>)>,
    /// Modules in this file.
    pub inline_modules: Vec<Vec<String>>,
    /// Names that are given out again.
    pub re_exports: Vec<ReExport>,
    /// Paths in use.
    pub named: Vec<Named>,
    inline: Vec<String>,
}

impl File {
    /// Reads a file's text.
    pub fn read(text: &str) -> Self {
        let mut file = Self::default();
        let syntax = syn::parse_file(text).expect("Rust");
        file.visit_file(&syntax);
        file
    }

    fn name(&mut self, segments: Vec<String>) {
        if segments.len() > 1 {
            self.named.push(Named {
                inline: self.inline.clone(),
                segments,
            });
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.name(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.name(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.name(path);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<syn::Path>()
                    .is_ok_and(|path| path.is_ident("test"))
    })
}

fn file_of(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| {
        let pair = attribute.meta.require_name_value().ok()?;
        let syn::Expr::Lit(literal) = &pair.value else {
            return None;
        };
        let syn::Lit::Str(text) = &literal.lit else {
            return None;
        };
        pair.path.is_ident("path").then(|| text.value())
    })
}

fn leaves(tree: &UseTree, before: &[String], each: &mut impl FnMut(Vec<String>, Option<String>)) {
    let with = |name: String| [before, &[name]].concat();
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &with(path.ident.to_string()), each),
        UseTree::Name(name) if name.ident == "self" => each(before.to_vec(), None),
        UseTree::Name(name) => each(with(name.ident.to_string()), None),
        UseTree::Rename(name) => {
            each(with(name.ident.to_string()), Some(name.rename.to_string()));
        }
        UseTree::Glob(_) => each(with("*".into()), None),
        UseTree::Group(group) => {
            for tree in &group.items {
                leaves(tree, before, each);
            }
        }
    }
}

impl<'ast> Visit<'ast> for File {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if is_test(attributes) {
            return;
        }
        let Item::Mod(module) = item else {
            return visit::visit_item(self, item);
        };
        let name = module.ident.to_string();
        let Some((_, items)) = &module.content else {
            self.modules.push((name, file_of(&module.attrs)));
            return;
        };
        self.inline.push(name);
        self.inline_modules.push(self.inline.clone());
        for item in items {
            self.visit_item(item);
        }
        self.inline.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let given_out = !matches!(item.vis, Visibility::Inherited);
        leaves(&item.tree, &[], &mut |segments, alias| {
            if given_out {
                let last = segments.last().cloned().unwrap_or_default();
                self.re_exports.push(ReExport {
                    inline: self.inline.clone(),
                    name: alias.unwrap_or(last),
                    segments,
                });
            } else {
                self.name(segments);
            }
        });
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        self.name(segments.map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }
}
