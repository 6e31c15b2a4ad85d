//! What a type looks like as text, and what is said about one that cannot cross.

use super::*;
use quote::quote;
use syn::parse_quote;

fn errors(ty: Type) -> Vec<String> {
    let error = check(&ty, "arguments are").expect_err("this type cannot cross");
    error.into_iter().map(|error| error.to_string()).collect()
}

#[test]
fn a_signature_is_the_name_and_the_types() {
    let types: [Type; 2] = [parse_quote!(i64), parse_quote!(Vec<(u32, String)>)];
    let result: Type = parse_quote!(Result<i64, DivError>);
    assert_eq!(
        signature("Calc.add", types.iter(), &result),
        "Calc.add(i64, Vec<(u32, String)>) -> Result<i64, DivError>"
    );
    assert_eq!(
        signature("Calc.stop", [].iter(), &parse_quote!(())),
        "Calc.stop() -> ()"
    );
}

#[test]
fn the_text_of_a_type_reads_as_people_write_it() {
    for written in [
        "()",
        "(i64,)",
        "(i64, (String,))",
        "(Map<A, B>,)",
        "[u8; 32]",
        "[u8; N]",
        "Matrix<{ N }>",
        "Matrix<-1>",
        "std::collections::BTreeMap<String, Vec<Option<u8>>>",
        "::std::string::String",
        "Cow<'static, str>",
        "Box<dyn Fn(u8, u8) -> u8 + Send + 'static>",
        "Box<dyn ::a::B>",
        "Box<dyn Iterator<Item = u8>>",
        "Box<dyn for<'a> Fn(&'a mut T)>",
        "<Vec<u8> as ::a::Trait>::Item",
        "<(u8, u8) as Trait>::Item",
        "fn(u8) -> (Map<A, B>, u8)",
        "(fn(u8) -> Map<A, B>,)",
        "*const u8",
    ] {
        let ty: Type = syn::parse_str(written).expect("a type");
        assert_eq!(text(&ty), written.replace("{ N }", "{N}"));
    }
}

#[test]
fn layout_and_trailing_commas_leave_no_trace() {
    let ty: Type = syn::parse_str("Map <\n  Vec < u8 , > ,( u8,\n u8 , ) , > ").expect("a type");
    assert_eq!(text(&ty), "Map<Vec<u8>, (u8, u8)>");
}

#[test]
fn the_invisible_groups_of_macro_rules_leave_no_trace() {
    let inner = proc_macro2::Group::new(Delimiter::None, quote!(Vec<u8>));
    let ty: Type = parse_quote!(Option<#inner>);
    assert_eq!(text(&ty), "Option<Vec<u8>>");
    let ty: Type = parse_quote!((#inner,));
    assert_eq!(text(&ty), "(Vec<u8>,)");
}

#[test]
fn owned_types_can_cross() {
    for written in [
        "()",
        "Cow<'static, str>",
        "[u8; A & B]",
        "Vec<(u8, a::Selfish)>",
    ] {
        let ty: Type = syn::parse_str(written).expect("a type");
        assert!(check(&ty, "arguments are").is_ok(), "{written}");
    }
}

#[test]
fn a_reference_is_answered_with_the_owned_type() {
    assert_eq!(
        errors(parse_quote!(&str)),
        ["arguments are owned: use `String`"]
    );
    assert_eq!(
        errors(parse_quote!(&'static str)),
        ["arguments are owned: use `String`"]
    );
    assert_eq!(
        errors(parse_quote!(&[(u8, u8)])),
        ["arguments are owned: use `Vec<(u8, u8)>`"]
    );
    for (written, owned) in [
        ("&Path", "std::path::PathBuf"),
        ("&std::path::Path", "std::path::PathBuf"),
        ("&geometry::Path", "geometry::Path"),
        ("&std::ffi::OsStr", "std::ffi::OsString"),
        ("&core::ffi::CStr", "std::ffi::CString"),
        ("&'static core::primitive::str", "String"),
        ("&(str)", "String"),
        ("&&[&str]", "Vec<String>"),
    ] {
        let ty: Type = syn::parse_str(written).expect("a type");
        assert_eq!(
            errors(ty),
            [format!("arguments are owned: use `{owned}`")],
            "{written}"
        );
    }
    assert_eq!(
        errors(parse_quote!(Map<&str, &mut Account>)),
        [
            "arguments are owned: use `String`",
            "arguments are owned: use `Account`"
        ]
    );
}

#[test]
fn a_lifetime_other_than_static_is_an_error() {
    let expected = "arguments are owned: use `'static` in place of `'_`";
    assert_eq!(errors(parse_quote!(Cow<'_, str>)), [expected]);
}

#[test]
fn a_type_without_a_name_is_an_error() {
    for (ty, written) in [
        (parse_quote!(impl Into<String>), "impl Into<String>"),
        (parse_quote!(&impl Into<String>), "&impl Into<String>"),
        (parse_quote!(&dyn Fn()), "&dyn Fn()"),
        (parse_quote!(&(dyn Fn() + Send)), "&(dyn Fn() + Send)"),
    ] {
        let expected = format!(
            "arguments are of one type, the same in both processes: \
             name it in place of `{written}`"
        );
        assert_eq!(errors(ty), [expected]);
    }
}

#[test]
fn the_service_itself_does_not_cross() {
    let expected = "`Self` is the service, which stays with the server: name another type";
    assert_eq!(errors(parse_quote!(Self)), [expected]);
    assert_eq!(errors(parse_quote!(Vec<Self::Item>)), [expected]);
}
