#include "transport/tls/peer_socket.h"

#include <openssl/err.h>

#include <boost/asio/ssl/error.hpp>

namespace runahead {
namespace {

using boost::system::error_code;

bool is_reason(const error_code& error, int reason) {
  return error.category() == asio::error::get_ssl_category() &&
         ERR_GET_REASON(static_cast<unsigned long>(error.value())) == reason;
}

TlsRefusal refusal_of(long verified) {
  if (verified == X509_V_ERR_CERT_REVOKED) return TlsRefusal::kRevoked;
  return verified == X509_V_ERR_CERT_HAS_EXPIRED || verified == X509_V_ERR_CERT_NOT_YET_VALID
             ? TlsRefusal::kExpired
             : TlsRefusal::kUnknownAuthority;
}

struct FailedHandshake {
  TlsRefusal why;
  std::string what;  // a person can do about it
};

FailedHandshake failed_handshake(const error_code& error, SSL* connection) {
  const long verified = SSL_get_verify_result(connection);
  if (verified != X509_V_OK)
    return {refusal_of(verified),
            std::string("the peer's certificate is not believed: ") + X509_verify_cert_error_string(verified)};
  if (is_reason(error, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE))
    return {TlsRefusal::kNoCertificate, "the peer has shown no certificate"};
  if (is_reason(error, SSL_R_WRONG_VERSION_NUMBER) || is_reason(error, SSL_R_HTTP_REQUEST))
    return {TlsRefusal::kNoTls, "the peer speaks no TLS: give it --tls-cert, --tls-key and --tls-ca, too"};
  if (error == asio::error::eof || error == asio::ssl::error::stream_truncated ||
      error == asio::error::connection_reset)
    return {TlsRefusal::kOther, "the peer ended the connection before TLS stood: it may speak none"};
  return {TlsRefusal::kOther, "TLS with the peer failed: " + error.message()};
}

}  // namespace

Task<void> PeerSocket::secure(std::shared_ptr<TlsIdentity> identity, End end, Peer expected) {
  if (!identity) co_return Result<void>{};
  TlsIdentity::Context context = identity->context();
  tls_ = std::make_unique<Tls>(context, asio::ssl::stream<Tcp::socket>(std::move(tcp_), *context));
  const auto side = end == End::kConnected ? asio::ssl::stream_base::client : asio::ssl::stream_base::server;
  auto [error] = co_await tls_->stream.async_handshake(side, kAsTuple);
  if (!error) co_return check_peer(*identity, expected);
  FailedHandshake failed = failed_handshake(error, tls_->stream.native_handle());
  identity->refused(failed.why);
  co_return fail(ErrorCode::kUnavailable, std::move(failed.what));
}

Result<void> PeerSocket::check_peer(const TlsIdentity& identity, Peer expected) {
  const auto refuse = [&](TlsRefusal why, std::string what) {
    identity.refused(why);
    return fail(ErrorCode::kUnavailable, std::move(what));
  };
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(SSL_get1_peer_certificate(tls_->stream.native_handle()),
                                                                &X509_free);
  if (!certificate) return refuse(TlsRefusal::kNoCertificate, "the peer has shown no certificate");
  const Result<TlsRole> named = role_in_certificate(certificate.get());
  if (!named) return refuse(TlsRefusal::kWrongRole, "the peer is not believed: " + named.error().message);
  const TlsRole role = *named;
  if ((role == TlsRole::kCoordinator) != (expected == Peer::kCoordinator))
    return refuse(TlsRefusal::kWrongRole, "the peer's certificate is of a " + std::string(to_string(role)) +
                                              ", and it should be " +
                                              (expected == Peer::kCoordinator ? "the coordinator" : "a worker"));
  role_ = role;
  return {};
}

}  // namespace runahead
