// Certificates of a cluster, for development and for clusters without an authority of their own: an authority, leaves that it
// signs (transport/tls/tls_identity.h says what a leaf names), its list of revoked ones. PEM in and out; keys are ECDSA P-256.
// Pure but for the clock of OpenSSL and its random numbers. kInvalidConfig: a text is not what it should be.
#pragma once

#include <span>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "transport/tls/tls_identity.h"

namespace runahead {

struct CertificateAndKey {
  std::string certificate;  // PEM
  std::string key;  // PEM, PKCS 8, not encrypted
};

struct Validity {
  std::chrono::seconds from{-300};  // after now: clocks of machines differ
  std::chrono::seconds until{0};
};

Result<CertificateAndKey> make_authority(Validity validity);
Result<CertificateAndKey> issue_certificate(const CertificateAndKey& authority, TlsRole role, Validity validity);
// PEM: of these certificates of the authority, besides those that an earlier list of it names (empty: none).
Result<std::string> revoke_certificates(const CertificateAndKey& authority, std::span<const std::string> certificates,
                                        const std::string& earlier, Validity validity);
// When it expires, in seconds from now; negative: it has.
Result<std::chrono::seconds> left_of(const std::string& certificate);

}  // namespace runahead
