use super::*;

const NOW: i64 = 1_800_000_000;

fn ca() -> Authority {
    Authority::kubeedge(NOW).unwrap()
}

#[test]
fn a_node_gets_a_certificate_with_its_name_and_no_more() {
    let (ca, key) = (ca(), Key::generate().unwrap());
    let request = node_request("edge-1", &key).unwrap();
    let certificate = ca.sign(&request, Usage::Client, NOW, 365).unwrap();
    let leaf = Leaf::read(&certificate).unwrap();
    assert_eq!(node_of(&leaf.common_name), Some("edge-1"));
    assert_eq!(leaf.organizations, ["system:nodes"]);
    assert_eq!(leaf.not_after - leaf.not_before, 365 * 86_400);
    assert!(!leaf.is_ca && Leaf::is_client_of(&certificate, ca.certificate(), NOW + 1));
    assert!(!Leaf::is_client_of(&certificate, ca.certificate(), NOW + 366 * 86_400), "expired");
    assert!(
        !Leaf::is_client_of(&certificate, Authority::kubeedge(NOW).unwrap().certificate(), NOW),
        "foreign"
    );
}

#[test]
fn a_request_that_asks_to_be_an_authority_does_not_become_one() {
    let key = Key::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "evil");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let request = params.serialize_request(&key.pair().unwrap()).unwrap();
    let ca = ca();
    let signed = ca.sign(request.der(), Usage::Client, NOW, 1).unwrap();
    assert!(!Leaf::read(&signed).unwrap().is_ca);
    for junk in [&b""[..], b"junk", &[0x30, 0x82, 0xff, 0xff]] {
        assert!(matches!(ca.sign(junk, Usage::Client, NOW, 1), Err(PkiError::Request(_))));
    }
}

#[test]
fn keys_survive_every_encoding_that_go_reads_or_writes() {
    let key = Key::generate().unwrap();
    assert_eq!(Key::from_pem(&key.to_pem()).unwrap(), key);
    assert_eq!(Key::from_pem(&to_pem("PRIVATE KEY", key.sec1())).unwrap(), key, "cloudcore labels SEC1 so");
    let pkcs8 = key.pair().unwrap().serialize_der();
    assert_eq!(Key::from_der(pkcs8.clone()).unwrap(), key);
    assert_eq!(Key::from_pem(&to_pem("PRIVATE KEY", &pkcs8)).unwrap(), key);
    assert!(Key::from_der(&b"junk"[..]).is_err());
    assert!(!format!("{key:?}").contains(char::is_numeric));
}

#[test]
fn an_authority_is_loaded_as_it_was_stored_and_only_with_its_own_key() {
    let made = ca();
    let loaded = Authority::load(made.certificate().clone(), made.key().clone()).unwrap();
    let token = sign_token(&made, NOW + 60);
    assert_eq!(verify_token(&loaded, split_token(&token).unwrap().1, NOW), Ok(()));
    assert!(Authority::load(made.certificate().clone(), Key::generate().unwrap()).is_err());
    let leaf = made.issue("x", &[], &Names::default(), Usage::Client, NOW, 1).unwrap();
    assert!(Authority::load(leaf.certificate, leaf.key).is_err());
}

#[test]
fn every_way_a_token_can_be_wrong_is_told_apart() {
    let (ca, other) = (ca(), ca());
    let token = sign_token(&ca, NOW + 60);
    let (hash, jwt) = split_token(&token).unwrap();
    assert_eq!(token.split('.').count(), 4);
    assert_eq!(hash.len(), 64);
    assert_eq!(token_names_ca(&token, ca.certificate()), Ok(()));
    assert_eq!(token_names_ca(&token, other.certificate()), Err(TokenError::OtherAuthority));
    assert_eq!(verify_token(&ca, jwt, NOW), Ok(()));
    assert_eq!(token_expiry(&ca, &token, NOW), Ok(NOW + 60));
    assert_eq!(token_expiry(&other, &token, NOW), Err(TokenError::OtherAuthority));
    assert_eq!(token_expiry(&ca, &token, NOW + 61), Err(TokenError::Expired));
    assert_eq!(verify_token(&ca, jwt, NOW + 61), Err(TokenError::Expired));
    assert_eq!(verify_token(&other, jwt, NOW), Err(TokenError::Signature));
    for bad in ["", "a.b", "a.b.c.d.e", "x.y.z"] {
        assert!(split_token(bad).is_err() && verify_token(&ca, bad, NOW).is_err(), "{bad}");
    }
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", jwt.split('.').nth(1).unwrap());
    assert_eq!(verify_token(&ca, &unsigned, NOW), Err(TokenError::Signature));
}

#[test]
fn a_certificate_tells_its_names_and_its_serial() {
    let names =
        Names { dns: vec!["cloud.example".into()], ips: vec![[10, 0, 0, 1].into(), [1_u16; 8].into()] };
    let ca = ca();
    assert_eq!(Leaf::read(ca.certificate()).unwrap().serial, "400");
    let server = ca.issue_server(&names, NOW).unwrap();
    let leaf = Leaf::read(&server.certificate).unwrap();
    assert_eq!(leaf.names, names);
    assert!(leaf.serial.len() <= 16 && !leaf.serial.starts_with('0'), "{}", leaf.serial);
    assert!(Leaf::is_signed_by(&server.certificate, ca.certificate()));
    assert!(!Leaf::is_signed_by(&server.certificate, Authority::kubeedge(NOW).unwrap().certificate()));
}

#[test]
fn rotation_falls_between_70_and_90_percent_of_the_life() {
    let leaf = Leaf {
        common_name: String::new(),
        organizations: vec![],
        serial: String::new(),
        names: Names::default(),
        not_before: 0,
        not_after: 1000,
        is_ca: false,
    };
    assert_eq!(rotation_point(&leaf, 0.0), 700);
    assert_eq!(rotation_point(&leaf, 1.0), 900);
}

#[test]
fn openssl_accepts_our_certificates_and_keys() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let openssl =
        |args: &[&str]| std::process::Command::new("openssl").args(args).current_dir(dir.path()).output();
    if openssl(&["version"]).is_err() {
        eprintln!("SKIPPED: openssl is not installed");
        return;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let ca = Authority::kubeedge(now - 60).unwrap();
    let leaf = ca
        .issue("n", &["o"], &Names { dns: vec!["localhost".into()], ips: vec![] }, Usage::Both, now - 60, 2)
        .unwrap();
    std::fs::write(at("ca.pem"), to_pem("CERTIFICATE", ca.certificate())).unwrap();
    std::fs::write(at("leaf.pem"), to_pem("CERTIFICATE", &leaf.certificate)).unwrap();
    std::fs::write(at("key.pem"), leaf.key.to_pem()).unwrap();
    let verified = openssl(&["verify", "-purpose", "sslclient", "-CAfile", "ca.pem", "leaf.pem"]).unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let key = openssl(&["ec", "-in", "key.pem", "-noout", "-check"]).unwrap();
    assert!(key.status.success(), "{key:?}");
    let made = openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "o.pem"]).unwrap();
    assert!(made.status.success());
    assert!(Key::from_pem(&std::fs::read_to_string(at("o.pem")).unwrap()).is_ok());
}
