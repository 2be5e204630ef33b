// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tls_server_config`, as rustls understands it. What rustls has not, or what would only look safe, is refused by name.

use super::config::{Http, Tls};
use rustls::{
    RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use std::sync::Arc;

/// Why TLS cannot be served as the file asks.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of a pair is not there.
    #[error("tls_server_config has no {0}; TLS needs a certificate and its key")]
    Absent(&'static str),
    /// The same thing twice.
    #[error("tls_server_config has both {0} and {0}_file; keep one")]
    Twice(&'static str),
    /// A PEM file holds no, or a broken, certificate or key.
    #[error("{0} of tls_server_config holds no PEM that can be used")]
    Pem(&'static str, #[source] pem::Error),
    /// A value that cannot be honoured.
    #[error("{key}: {value:?} of tls_server_config cannot be honoured: {why}")]
    Refused {
        /// The key.
        key: &'static str,
        /// What it was set to; never a secret.
        value: String,
        /// Why not, and what can be.
        why: &'static str,
    },
    /// The certificate authorities of clients cannot be used.
    #[error("the certificate authorities of client_ca cannot be used")]
    ClientAuthorities(#[source] VerifierBuilderError),
    /// One of the authorities is no certificate.
    #[error("a certificate in client_ca cannot be used")]
    Authority(#[source] rustls::Error),
    /// Certificate and key do not belong together, or the key is of a kind that is not known.
    #[error("the certificate and the key of tls_server_config cannot be used together")]
    Pair(#[source] rustls::Error),
    /// No version or suite is left.
    #[error("tls_server_config leaves no way to speak: no cipher suite fits the versions")]
    Nothing(#[source] rustls::Error),
}

/// The PEM texts that the file has or names.
pub struct Material {
    /// Certificate chain.
    pub cert: Vec<u8>,
    /// Key.
    pub key: Vec<u8>,
    /// Certificate authorities of clients, where there are any.
    pub client_ca: Option<Vec<u8>>,
}

/// Makes rustls' configuration.
///
/// # Errors
///
/// [`TlsError`].
pub fn server(tls: &Tls, http: &Http, material: &Material) -> Result<ServerConfig, TlsError> {
    if !tls.client_allowed_sans.is_empty() {
        return Err(TlsError::Refused {
            key: "client_allowed_sans",
            value: tls.client_allowed_sans.join(", "),
            why: "names of clients are not compared; give them a certificate authority of their own",
        });
    }
    let provider = Arc::new(CryptoProvider {
        cipher_suites: suites(&tls.cipher_suites)?,
        kx_groups: groups(&tls.curve_preferences)?,
        ..ring::default_provider()
    });
    let chain = certificates("cert", &material.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key)
        .map_err(|error| TlsError::Pem("key", error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(&tls.min_version, &tls.max_version)?)
        .map_err(TlsError::Nothing)?;
    let builder = match client_verifier(tls, material.client_ca.as_deref(), provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
    config.ignore_client_order = tls.prefer_server_cipher_suites;
    config.alpn_protocols = if http.http2 {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    } else {
        vec![b"http/1.1".to_vec()]
    };
    Ok(config)
}

fn certificates(what: &'static str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem(what, error))?;
    if chain.is_empty() { Err(TlsError::Pem(what, pem::Error::NoItemsFound)) } else { Ok(chain) }
}

fn versions(min: &str, max: &str) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let number = |key, name: &str| match name {
        "TLS12" => Ok(12),
        "TLS13" => Ok(13),
        "TLS10" | "TLS11" => Err(TlsError::Refused {
            key,
            value: name.into(),
            why: "TLS before 1.2 is broken and not spoken; write TLS12 or TLS13",
        }),
        _ => Err(TlsError::Refused { key, value: name.into(), why: "write TLS12 or TLS13" }),
    };
    let (min_number, max_number) = (number("min_version", min)?, number("max_version", max)?);
    if min_number > max_number {
        let why = "min_version is above max_version";
        return Err(TlsError::Refused { key: "min_version", value: min.into(), why });
    }
    let both = [(12, &TLS12), (13, &TLS13)];
    let wanted = both.into_iter().filter(|(number, _)| (min_number..=max_number).contains(number));
    Ok(wanted.map(|(_, version)| version).collect())
}

/// Go's names are IANA's. As there, suites of TLS 1.3 are always on, whether they are named or not.
fn suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    if names.is_empty() {
        return Ok(ring::ALL_CIPHER_SUITES.to_vec());
    }
    let is_tls13 = |suite: &&SupportedCipherSuite| suite.tls13().is_some();
    let mut suites: Vec<_> = ring::ALL_CIPHER_SUITES.iter().filter(is_tls13).copied().collect();
    for name in names {
        // rustls names those of TLS 1.3 by their version.
        let ours = match name.strip_prefix("TLS_") {
            Some(rest) if !rest.contains("_WITH_") => format!("TLS13_{rest}"),
            _ => name.clone(),
        };
        let known = |suite: &&SupportedCipherSuite| suite.suite().as_str() == Some(&ours);
        let Some(suite) = ring::ALL_CIPHER_SUITES.iter().find(known) else {
            return Err(TlsError::Refused {
                key: "cipher_suites",
                value: name.clone(),
                why: "write TLS_ECDHE_{RSA,ECDSA}_WITH_{AES_128_GCM_SHA256,AES_256_GCM_SHA384,\
                      CHACHA20_POLY1305_SHA256}: others lack forward secrecy or authenticated encryption",
            });
        };
        if !suites.contains(suite) {
            suites.push(*suite);
        }
    }
    Ok(suites)
}

fn groups(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, TlsError> {
    if names.is_empty() {
        return Ok(ring::ALL_KX_GROUPS.to_vec());
    }
    let group = |name: &String| match name.as_str() {
        "X25519" => Ok(ring::kx_group::X25519),
        "CurveP256" => Ok(ring::kx_group::SECP256R1),
        "CurveP384" => Ok(ring::kx_group::SECP384R1),
        _ => Err(TlsError::Refused {
            key: "curve_preferences",
            value: name.clone(),
            why: "write X25519, CurveP256 or CurveP384",
        }),
    };
    names.iter().map(group).collect()
}

/// Go's `ClientAuthType`. The ones that take any certificate without looking are refused: whoever sets them expects more.
fn client_verifier(
    tls: &Tls,
    authorities: Option<&[u8]>,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let refused = |why| {
        Err(TlsError::Refused { key: "client_auth_type", value: tls.client_auth_type.clone(), why })
    };
    let optional = match tls.client_auth_type.as_str() {
        "" | "NoClientCert" if authorities.is_none() => return Ok(None),
        "" | "NoClientCert" => {
            return refused("there is a client_ca; write RequireAndVerifyClientCert to use it");
        }
        "RequireAndVerifyClientCert" => false,
        "VerifyClientCertIfGiven" => true,
        "RequestClientCert" | "RequireClientCert" | "RequireAnyClientCert" => {
            return refused(
                "it takes any certificate without verifying it; write RequireAndVerifyClientCert",
            );
        }
        _ => {
            return refused(
                "write NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert",
            );
        }
    };
    let Some(authorities) = authorities else {
        return refused("there is no client_ca_file to verify certificates with");
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates("client_ca", authorities)? {
        roots.add(authority).map_err(TlsError::Authority)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map(Some).map_err(TlsError::ClientAuthorities)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material() -> Material {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        Material {
            cert: pair.cert.pem().into(),
            key: pair.signing_key.serialize_pem().into(),
            client_ca: None,
        }
    }

    fn refusal(change: impl FnOnce(&mut Tls)) -> String {
        let mut tls = Tls::default();
        change(&mut tls);
        let error = server(&tls, &Http::default(), &material()).expect_err("it cannot be honoured");
        error.to_string()
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_key_value_and_reason() {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        for (told, words) in [
            (refusal(|tls| tls.min_version = "TLS10".into()), ["min_version", "TLS10"]),
            (refusal(|tls| tls.max_version = "SSL30".into()), ["max_version", "SSL30"]),
            (
                refusal(|tls| {
                    (tls.min_version, tls.max_version) = ("TLS13".into(), "TLS12".into())
                }),
                ["min_version", "above"],
            ),
            (
                refusal(|tls| tls.cipher_suites = strings(&["TLS_RSA_WITH_AES_128_CBC_SHA"])),
                ["cipher_suites", "AES_128_CBC"],
            ),
            (
                refusal(|tls| tls.curve_preferences = strings(&["CurveP521"])),
                ["curve_preferences", "CurveP384"],
            ),
            (
                refusal(|tls| tls.client_auth_type = "RequireAnyClientCert".into()),
                ["client_auth_type", "without verifying"],
            ),
            (
                refusal(|tls| tls.client_auth_type = "RequireAndVerifyClientCert".into()),
                ["client_auth_type", "no client_ca_file"],
            ),
            (
                refusal(|tls| tls.client_allowed_sans = strings(&["a.example"])),
                ["client_allowed_sans", "a.example"],
            ),
        ] {
            assert!(words.iter().all(|word| told.contains(word)), "{told}");
        }
    }

    #[test]
    fn authorities_that_nobody_asks_for_are_refused() {
        let mut material = material();
        material.client_ca = Some(material.cert.clone());
        let error = server(&Tls::default(), &Http::default(), &material).expect_err("unused");
        assert!(error.to_string().contains("RequireAndVerifyClientCert"), "{error}");
    }

    #[test]
    fn go_names_of_suites_are_known_and_those_of_1_3_stay_on() {
        let names = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"];
        let suites = suites(&names.map(str::to_owned)).expect("known");
        assert_eq!(suites.len(), 4, "{suites:?}");
        assert_eq!(versions("TLS12", "TLS12").expect("known"), [&TLS12]);
        assert_eq!(versions("TLS12", "TLS13").expect("known").len(), 2);
    }

    #[test]
    fn http2_is_offered_unless_it_is_switched_off() {
        let tls = Tls::default();
        let on = server(&tls, &Http::default(), &material()).expect("fine");
        assert_eq!(on.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        let off = Http { http2: false, ..Http::default() };
        let off = server(&tls, &off, &material()).expect("fine");
        assert_eq!(off.alpn_protocols, [b"http/1.1".to_vec()]);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_not_shown() {
        let (ours, other) = (material(), material());
        let mixed = Material { cert: ours.cert, key: other.key, client_ca: None };
        let error = server(&Tls::default(), &Http::default(), &mixed).expect_err("no pair");
        assert!(error.to_string().contains("together"), "{error}");
        let empty = Material { cert: Vec::new(), ..material() };
        let error = server(&Tls::default(), &Http::default(), &empty).expect_err("no certificate");
        assert!(matches!(error, TlsError::Pem("cert", _)), "{error}");
    }
}
