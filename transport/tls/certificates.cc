#include "transport/tls/certificates.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <array>
#include <memory>

namespace runahead {
namespace {

template <auto free>
struct Freed {
  template <class T>
  void operator()(T* object) const {
    free(object);
  }
};
using Certificate = std::unique_ptr<X509, Freed<X509_free>>;
using RevokedList = std::unique_ptr<X509_CRL, Freed<X509_CRL_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;
using Bio = std::unique_ptr<BIO, Freed<BIO_free_all>>;

std::unexpected<Error> failed(const std::string& what) {
  return fail(ErrorCode::kInternal, "OpenSSL cannot make " + what);
}

Bio reading(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

Result<Certificate> read_certificate(const std::string& text) {
  Certificate certificate(PEM_read_bio_X509(reading(text).get(), nullptr, nullptr, nullptr));
  if (!certificate) return fail(ErrorCode::kInvalidConfig, "this is no certificate in PEM");
  return certificate;
}

struct Authority {
  Certificate certificate;
  Key key;
};

Result<Authority> read_authority(const CertificateAndKey& texts) {
  Authority authority;
  authority.certificate = TRY(read_certificate(texts.certificate));
  authority.key.reset(PEM_read_bio_PrivateKey(reading(texts.key).get(), nullptr, nullptr, nullptr));
  if (!authority.key) return fail(ErrorCode::kInvalidConfig, "this is no private key in PEM");
  if (X509_check_private_key(authority.certificate.get(), authority.key.get()) != 1)
    return fail(ErrorCode::kInvalidConfig, "the authority's key is not that of its certificate");
  return authority;
}

Result<CertificateAndKey> to_texts(X509* certificate, EVP_PKEY* key) {
  const Bio first(BIO_new(BIO_s_mem())), second(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(first.get(), certificate) != 1 ||
      PEM_write_bio_PKCS8PrivateKey(second.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return failed("PEM of a certificate");
  return CertificateAndKey{text_of(first.get()), text_of(second.get())};
}

bool set_validity(X509* certificate, Validity validity) {
  return X509_gmtime_adj(X509_getm_notBefore(certificate), validity.from.count()) != nullptr &&
         X509_gmtime_adj(X509_getm_notAfter(certificate), validity.until.count()) != nullptr;
}

// 127 random bits: never the same twice, and positive.
bool set_serial_number(X509* certificate) {
  std::array<unsigned char, 16> bytes;
  if (RAND_bytes(bytes.data(), bytes.size()) != 1) return false;
  bytes[0] &= 0x7F;
  const std::unique_ptr<BIGNUM, Freed<BN_free>> number(BN_bin2bn(bytes.data(), bytes.size(), nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool set_name(X509_NAME* name, std::string_view common_name) {
  return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(common_name.data()),
                                    static_cast<int>(common_name.size()), -1, 0) == 1;
}

bool add_extension(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const std::unique_ptr<X509_EXTENSION, Freed<X509_EXTENSION_free>> extension(
      X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()));
  return extension && X509_add_ext(certificate, extension.get(), -1) == 1;
}

// Everything but names, extensions and the signature.
Result<std::pair<Certificate, Key>> begin_certificate(Validity validity) {
  Certificate certificate(X509_new());
  Key key(EVP_EC_gen("P-256"));
  if (!certificate || !key || X509_set_version(certificate.get(), X509_VERSION_3) != 1 ||
      !set_serial_number(certificate.get()) || !set_validity(certificate.get(), validity) ||
      X509_set_pubkey(certificate.get(), key.get()) != 1)
    return failed("a certificate");
  return std::pair(std::move(certificate), std::move(key));
}

}  // namespace

Result<CertificateAndKey> make_authority(Validity validity) {
  const auto [certificate, key] = TRY(begin_certificate(validity));
  X509* own = certificate.get();
  X509_NAME* name = X509_get_subject_name(own);
  if (!set_name(name, "Runahead cluster authority") || X509_set_issuer_name(own, name) != 1 ||
      !add_extension(own, own, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !add_extension(own, own, NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !add_extension(own, own, NID_subject_key_identifier, "hash") || X509_sign(own, key.get(), EVP_sha256()) == 0)
    return failed("an authority");
  return to_texts(own, key.get());
}

Result<CertificateAndKey> issue_certificate(const CertificateAndKey& texts, TlsRole role, Validity validity) {
  const Authority authority = TRY(read_authority(texts));
  const auto [certificate, key] = TRY(begin_certificate(validity));
  X509 *own = certificate.get(), *issuer = authority.certificate.get();
  if (!set_name(X509_get_subject_name(own), "Runahead " + std::string(to_string(role))) ||
      X509_set_issuer_name(own, X509_get_subject_name(issuer)) != 1 ||
      !add_extension(own, issuer, NID_basic_constraints, "critical,CA:FALSE") ||
      !add_extension(own, issuer, NID_key_usage, "critical,digitalSignature") ||
      !add_extension(own, issuer, NID_ext_key_usage, "serverAuth,clientAuth") ||
      !add_extension(own, issuer, NID_authority_key_identifier, "keyid") ||
      !add_extension(own, issuer, NID_subject_alt_name, "URI:" + tls_uri(role)) ||
      X509_sign(own, authority.key.get(), EVP_sha256()) == 0)
    return failed("a certificate");
  return to_texts(own, key.get());
}

Result<std::string> revoke_certificates(const CertificateAndKey& texts, std::span<const std::string> certificates,
                                        const std::string& earlier, Validity validity) {
  const Authority authority = TRY(read_authority(texts));
  RevokedList list(earlier.empty() ? X509_CRL_new()
                                   : PEM_read_bio_X509_CRL(reading(earlier).get(), nullptr, nullptr, nullptr));
  if (!list) return fail(ErrorCode::kInvalidConfig, "this is no list of revoked certificates in PEM");
  const std::unique_ptr<ASN1_TIME, Freed<ASN1_TIME_free>> from(X509_gmtime_adj(nullptr, validity.from.count())),
      until(X509_gmtime_adj(nullptr, validity.until.count()));
  for (const std::string& text : certificates) {
    const Certificate certificate = TRY(read_certificate(text));
    X509_REVOKED* known = nullptr;
    if (X509_CRL_get0_by_cert(list.get(), &known, certificate.get()) == 1) continue;
    std::unique_ptr<X509_REVOKED, Freed<X509_REVOKED_free>> entry(X509_REVOKED_new());
    if (!entry || X509_REVOKED_set_serialNumber(entry.get(), X509_get_serialNumber(certificate.get())) != 1 ||
        X509_REVOKED_set_revocationDate(entry.get(), from.get()) != 1 ||
        X509_CRL_add0_revoked(list.get(), entry.get()) != 1)
      return failed("an entry of a list of revoked certificates");
    static_cast<void>(entry.release());  // the list has it
  }
  if (X509_CRL_set_version(list.get(), X509_CRL_VERSION_2) != 1 ||
      X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(authority.certificate.get())) != 1 ||
      X509_CRL_set1_lastUpdate(list.get(), from.get()) != 1 || X509_CRL_set1_nextUpdate(list.get(), until.get()) != 1 ||
      X509_CRL_sort(list.get()) != 1 || X509_CRL_sign(list.get(), authority.key.get(), EVP_sha256()) == 0)
    return failed("a list of revoked certificates");
  const Bio text(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509_CRL(text.get(), list.get()) != 1) return failed("PEM of a list of revoked certificates");
  return text_of(text.get());
}

Result<std::chrono::seconds> left_of(const std::string& text) {
  const Certificate certificate = TRY(read_certificate(text));
  int days = 0, seconds = 0;
  if (ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(certificate.get())) != 1)
    return fail(ErrorCode::kInvalidConfig, "the certificate says no time at which it expires");
  return std::chrono::seconds(int64_t{days} * 86400 + seconds);
}

}  // namespace runahead
