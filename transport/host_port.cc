#include "transport/host_port.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <charconv>
#include <optional>

namespace runahead {
namespace {

using boost::asio::ip::address;

constexpr size_t kHostBytesMax = 255;  // RFC 1035
constexpr size_t kQuotedBytesMax = 300;

std::optional<address> literal(std::string_view host) {
  boost::system::error_code error;
  const auto parsed = boost::asio::ip::make_address(std::string(host), error);
  return error ? std::nullopt : std::optional(parsed);
}

// IPv4 in IPv6's clothes is IPv4.
address plain(const address& from) {
  return from.is_v6() && from.to_v6().is_v4_mapped()
             ? address(boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, from.to_v6()))
             : from;
}

bool is_bracketed(std::string_view text) { return text.size() > 2 && text.front() == '[' && text.back() == ']'; }

// Whether it could be a name or a literal: no blanks and no control characters are in one.
bool is_word(std::string_view host) {
  return !host.empty() && host.size() <= kHostBytesMax &&
         std::ranges::none_of(host, [](unsigned char c) { return c <= ' ' || c == 0x7F; });
}

std::string quoted(std::string_view text) { return "'" + std::string(text.substr(0, kQuotedBytesMax)) + "'"; }

}  // namespace

Result<HostPort> parse_host_port(std::string_view text) {
  const size_t colon = text.rfind(':');
  std::string_view host = colon == std::string_view::npos ? text : text.substr(0, colon);
  const std::string_view digits = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  HostPort address;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), address.port);
  const bool bracketed = is_bracketed(host);
  if (bracketed) host = host.substr(1, host.size() - 2);
  const bool host_ok =
      is_word(host) && (bracketed ? literal(host).has_value() : host.find_first_of(":[]") == std::string_view::npos);
  if (!host_ok || digits.empty() || error != std::errc() || end != digits.data() + digits.size())
    return fail(ErrorCode::kInvalidArgument,
                quoted(text) + " is not of the form host:port, [IPv6 address]:port or *:port");
  address.host = host;
  return address;
}

std::string to_string(const HostPort& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  return (v6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

bool is_wildcard(std::string_view host) {
  const auto parsed = literal(host);
  return host == "*" || (parsed && plain(*parsed).is_unspecified());
}

bool is_loopback(std::string_view host) {
  const auto parsed = literal(host);
  return host == "localhost" || (parsed && plain(*parsed).is_loopback());
}

Result<HostPort> parse_advertised(std::string_view text, uint16_t port) {
  HostPort address{std::string(text), port};
  if (is_bracketed(text)) address.host = text.substr(1, text.size() - 2);
  if (text.find(':') != std::string_view::npos && !literal(address.host)) address = TRY(parse_host_port(text));
  if (!is_word(address.host) || address.host.find_first_of("[]") != std::string::npos || is_wildcard(address.host))
    return fail(ErrorCode::kInvalidArgument,
                "peers cannot connect to " + quoted(text) + ": --advertise takes a name or an address of this machine",
                "advertise");
  if (address.port == 0 && port != 0)
    return fail(ErrorCode::kInvalidArgument,
                "peers cannot connect to port 0 of " + quoted(text) +
                    ": leave the port out, and --advertise takes that of --data-listen",
                "advertise");
  return address;
}

Result<HostPort> parse_destination(std::string_view text) {
  HostPort address = TRY(parse_host_port(text));
  if (address.port == 0 || is_wildcard(address.host))
    return fail(ErrorCode::kInvalidArgument,
                quoted(text) + " is nothing to connect to: give a name or an address, and its port");
  return address;
}

Result<std::string> advertised_by(std::string_view listen_host, std::string_view local) {
  const auto refuse = [](std::string why) -> std::unexpected<Error> {
    return fail(ErrorCode::kInvalidConfig,
                why + "; give --advertise an address of this machine that the other workers reach", "advertise");
  };
  const auto parsed = literal(local);
  if (!parsed || parsed->is_unspecified())
    return refuse("this worker listens on every address, and does not know by which one its peers reach it");
  const address ours = plain(*parsed);
  if (ours.is_v6() && ours.to_v6().is_link_local())
    return refuse("the coordinator is reached from " + std::string(local) +
                  ", which means nothing beyond its own link");
  const auto listened = literal(listen_host);
  if (listened && listened->is_v4() && ours.is_v6())
    return refuse("the coordinator is reached from " + ours.to_string() +
                  " (IPv6), but --data-listen is IPv4 alone: listen on *:port");
  return ours.to_string();
}

}  // namespace runahead
