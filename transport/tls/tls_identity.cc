#include "transport/tls/tls_identity.h"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <array>
#include <utility>

#include "base/log.h"

namespace runahead {
namespace {

namespace ssl = asio::ssl;
using boost::system::error_code;

constexpr std::string_view kUriPrefix = "spiffe://runahead/";
constexpr std::array kRoles = {std::pair(TlsRole::kCoordinator, std::string_view("coordinator")),
                               std::pair(TlsRole::kPrefill, std::string_view("prefill")),
                               std::pair(TlsRole::kDecode, std::string_view("decode"))};
constexpr auto kLookAgain = std::chrono::seconds(1);
// The first is the fastest where a processor has AES.
constexpr const char* kCipherSuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

std::unexpected<Error> unusable(const std::string& flag, const std::string& file, const std::string& why) {
  return fail(ErrorCode::kInvalidConfig, "the file of --" + flag + ", " + file + ", cannot be used: " + why, flag);
}

Result<void> load_revoked(SSL_CTX* context, const std::string& file) {
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  X509_LOOKUP* lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
  if (lookup == nullptr || X509_load_crl_file(lookup, file.c_str(), X509_FILETYPE_PEM) <= 0)
    return unusable("tls-revoked", file, "it holds no list of revoked certificates in PEM");
  X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
  return {};
}

}  // namespace

std::string_view to_string(TlsRole role) {
  for (const auto& [known, name] : kRoles)
    if (known == role) return name;
  return {};
}

std::optional<TlsRole> tls_role_of(std::string_view name) {
  for (const auto& [role, known] : kRoles)
    if (known == name) return role;
  return std::nullopt;
}

std::string tls_uri(TlsRole role) { return std::string(kUriPrefix) + std::string(to_string(role)); }

Result<TlsRole> role_in_certificate(X509* certificate) {
  const std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)),
      &GENERAL_NAMES_free);
  std::vector<std::string> uris;
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* uri = name->d.uniformResourceIdentifier;
    uris.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                      static_cast<size_t>(ASN1_STRING_length(uri)));
  }
  if (uris.size() == 1 && uris.front().starts_with(kUriPrefix))
    if (const auto role = tls_role_of(std::string_view(uris.front()).substr(kUriPrefix.size()))) return *role;
  return fail(ErrorCode::kIncompatible, "the certificate names no role of a cluster: it needs exactly one URI like " +
                                            tls_uri(TlsRole::kPrefill));
}

Result<std::shared_ptr<TlsIdentity>> TlsIdentity::open(TlsFiles files, TlsRole role, const Clock& clock) {
  for (const auto& [file, flag] : {std::pair(&files.certificate, "tls-cert"), std::pair(&files.key, "tls-key"),
                                   std::pair(&files.authorities, "tls-ca")})
    if (file->empty())
      return fail(ErrorCode::kInvalidConfig,
                  "TLS needs --tls-cert, --tls-key and --tls-ca together; --" + std::string(flag) + " is missing",
                  flag);
  std::shared_ptr<TlsIdentity> identity(new TlsIdentity(std::move(files), role, clock));
  identity->loaded_ = identity->stamps();
  identity->context_ = TRY(identity->load());
  identity->looked_ = clock.now();
  return identity;
}

TlsIdentity::Stamps TlsIdentity::stamps() const {
  Stamps stamps;
  for (const std::string* file : {&files_.certificate, &files_.key, &files_.authorities, &files_.revoked}) {
    std::error_code missing;
    stamps.push_back(std::filesystem::last_write_time(*file, missing));
  }
  return stamps;
}

TlsIdentity::Context TlsIdentity::context() {
  if (clock_.now() < looked_ + kLookAgain) return context_;
  looked_ = clock_.now();
  Stamps now = stamps();
  if (now == loaded_) return context_;
  Result<Context> fresh = load();
  if (fresh) {
    context_ = *fresh;
    log::info("tls: the certificate files have changed, and serve from now on");
  } else {
    log::warn("tls: the certificate files have changed, and those before stay: {}", fresh.error().message);
  }
  loaded_ = std::move(now);
  return context_;
}

Result<TlsIdentity::Context> TlsIdentity::load() const {
  auto context = std::make_shared<ssl::context>(ssl::context::tls);
  SSL_CTX* raw = context->native_handle();
  SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION);
  SSL_CTX_set_ciphersuites(raw, kCipherSuites);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(raw, 0);  // every connection shows its certificate
  error_code error;
  context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, error);
  context->use_certificate_chain_file(files_.certificate, error);
  if (error) return unusable("tls-cert", files_.certificate, error.message());
  context->use_private_key_file(files_.key, ssl::context::pem, error);
  if (error) return unusable("tls-key", files_.key, error.message());
  context->load_verify_file(files_.authorities, error);
  if (error) return unusable("tls-ca", files_.authorities, error.message());
  if (!files_.revoked.empty()) TRY(load_revoked(raw, files_.revoked));
  const Result<TlsRole> role = role_in_certificate(SSL_CTX_get0_certificate(raw));
  if (!role) return unusable("tls-cert", files_.certificate, role.error().message);
  if (*role != role_)
    return unusable(
        "tls-cert", files_.certificate,
        "its role is " + std::string(to_string(*role)) + ", and this process is " + std::string(to_string(role_)));
  return context;
}

}  // namespace runahead
