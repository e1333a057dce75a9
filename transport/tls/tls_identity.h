// TlsIdentity: who this process is between the processes of a cluster, and whom it believes: a certificate with its key, the
// authority that all certificates come from, and, where given, its list of revoked ones. A certificate names one role, as the URI
// spiffe://runahead/<role> of its subject alternative names (SPIFFE's form of an identity, one URI a certificate).
//   files    PEM. They are looked at again when a handshake begins, at most once a second: new ones serve from the next handshake
//            on; connections that stand stay. Files that cannot be read leave what was there, with a line in the log.
//   threads  the process's io_context thread.
//   errors   kInvalidConfig: which file, and why.
#pragma once

#include <array>
#include <boost/asio/ssl/context.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace runahead {

namespace asio = boost::asio;

enum class TlsRole { kCoordinator, kPrefill, kDecode };
std::string_view to_string(TlsRole role);
std::optional<TlsRole> tls_role_of(std::string_view name);
std::string tls_uri(TlsRole role);

// Why a peer was not believed, in a handshake. Values are the places of kTlsRefusals.
enum class TlsRefusal { kNoTls, kNoCertificate, kUnknownAuthority, kExpired, kRevoked, kWrongRole, kOther };
inline constexpr std::array<std::string_view, 7> kTlsRefusals = {
    "no_tls", "no_certificate", "unknown_authority", "expired", "revoked", "wrong_role", "other"};

struct TlsFiles {
  std::string certificate;  // of this process, and those between it and the authority
  std::string key;  // of the certificate
  std::string authorities;  // several while one replaces another
  std::string revoked;  // lists of every authority; empty: nobody is
  bool wanted() const { return !certificate.empty() || !key.empty() || !authorities.empty() || !revoked.empty(); }
};

class TlsIdentity {
 public:
  using Context = std::shared_ptr<asio::ssl::context>;

  // `role`: that the certificate must have.
  static Result<std::shared_ptr<TlsIdentity>> open(TlsFiles files, TlsRole role, const Clock& clock);

  // For a handshake that begins now, of either end: TLS 1.3, a certificate of each.
  Context context();
  // Called for each peer that a handshake did not believe, of either end.
  void on_refusal(std::function<void(TlsRefusal)> call) { on_refusal_ = std::move(call); }
  void refused(TlsRefusal why) const {
    if (on_refusal_) on_refusal_(why);
  }

 private:
  using Stamps = std::vector<std::filesystem::file_time_type>;
  TlsIdentity(TlsFiles files, TlsRole role, const Clock& clock)
      : files_(std::move(files)), role_(role), clock_(clock) {}
  Stamps stamps() const;
  Result<Context> load() const;

  TlsFiles files_;
  TlsRole role_;
  const Clock& clock_;
  Context context_;
  Stamps loaded_;  // of the files, when they were last read
  Time looked_{0};
  std::function<void(TlsRefusal)> on_refusal_;
};

// Of a certificate that the authority has signed. kIncompatible.
Result<TlsRole> role_in_certificate(X509* certificate);

}  // namespace runahead
