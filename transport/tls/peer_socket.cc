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

// What a person can do about a handshake that failed.
Error handshake_error(const error_code& error, SSL* connection) {
  const long verified = SSL_get_verify_result(connection);
  if (verified != X509_V_OK)
    return {ErrorCode::kUnavailable,
            std::string("the peer's certificate is not believed: ") + X509_verify_cert_error_string(verified),
            {}};
  if (is_reason(error, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE))
    return {ErrorCode::kUnavailable, "the peer has shown no certificate", {}};
  if (is_reason(error, SSL_R_WRONG_VERSION_NUMBER) || is_reason(error, SSL_R_HTTP_REQUEST))
    return {ErrorCode::kUnavailable, "the peer speaks no TLS: give it --tls-cert, --tls-key and --tls-ca, too", {}};
  if (error == asio::error::eof || error == asio::ssl::error::stream_truncated ||
      error == asio::error::connection_reset)
    return {ErrorCode::kUnavailable, "the peer ended the connection before TLS stood: it may speak none", {}};
  return {ErrorCode::kUnavailable, "TLS with the peer failed: " + error.message(), {}};
}

}  // namespace

Task<void> PeerSocket::secure(std::shared_ptr<TlsIdentity> identity, End end, Peer expected) {
  if (!identity) co_return Result<void>{};
  TlsIdentity::Context context = identity->context();
  tls_ = std::make_unique<Tls>(context, asio::ssl::stream<Tcp::socket>(std::move(tcp_), *context));
  const auto side = end == End::kConnected ? asio::ssl::stream_base::client : asio::ssl::stream_base::server;
  auto [error] = co_await tls_->stream.async_handshake(side, kAsTuple);
  if (error) co_return std::unexpected(handshake_error(error, tls_->stream.native_handle()));
  co_return check_peer(expected);
}

Result<void> PeerSocket::check_peer(Peer expected) {
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(SSL_get1_peer_certificate(tls_->stream.native_handle()),
                                                                &X509_free);
  if (!certificate) return fail(ErrorCode::kUnavailable, "the peer has shown no certificate");
  const Result<TlsRole> named = role_in_certificate(certificate.get());
  if (!named) return fail(ErrorCode::kUnavailable, "the peer is not believed: " + named.error().message);
  const TlsRole role = *named;
  if ((role == TlsRole::kCoordinator) != (expected == Peer::kCoordinator))
    return fail(ErrorCode::kUnavailable, "the peer's certificate is of a " + std::string(to_string(role)) +
                                             ", and it should be " +
                                             (expected == Peer::kCoordinator ? "the coordinator" : "a worker"));
  role_ = role;
  return {};
}

}  // namespace runahead
