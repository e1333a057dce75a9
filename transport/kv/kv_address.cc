#include "transport/kv/kv_address.h"

#include <charconv>
#include <cstdio>
#include <ranges>

#include "transport/kv/kv_transport.h"

namespace runahead {

std::string to_string(const KvAddress& address) {
  char hex[17];
  std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(address.incarnation));
  return address.transport + "://" + to_string(address.place) + "#" + hex;
}

Result<KvAddress> parse_kv_address(std::string_view text, std::string_view transport) {
  const size_t hash = text.rfind('#');
  KvAddress address{.transport = std::string(transport)};
  const std::string_view digits = hash == std::string_view::npos ? std::string_view() : text.substr(hash + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), address.incarnation, 16);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size() ||
      kv_transport_of(text) != transport)
    return fail(ErrorCode::kInvalidArgument, "'" + std::string(text.substr(0, 300)) + "' is not an address of the " +
                                                 address.transport + " transport: do both workers use it?");
  const size_t place = transport.size() + 3;  // behind "://"
  address.place = TRY(parse_host_port(text.substr(place, hash - place)));
  return address;
}

bool leads_to_own_machine(std::string_view kv_address) {
  const size_t begin = kv_address.find("://"), end = kv_address.find('#');
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin) return false;
  const auto place = parse_host_port(kv_address.substr(begin + 3, end - begin - 3));
  return place && is_loopback(place->host);
}

std::string_view part_in_common(std::string_view own, std::string_view theirs) {
  for (const auto mine : std::views::split(own, kBetweenKvAddresses))
    for (const auto part : std::views::split(theirs, kBetweenKvAddresses)) {
      const std::string_view address(part.begin(), part.end());
      if (const auto transport = kv_transport_of(address);
          !transport.empty() && transport == kv_transport_of(std::string_view(mine.begin(), mine.end())))
        return address;
    }
  return {};
}

std::string transport_in_common(std::string_view own, std::string_view theirs) {
  const std::string_view transport = kv_transport_of(part_in_common(own, theirs));
  return std::string(transport.substr(0, transport.find('-')));  // without the version of UCX
}

}  // namespace runahead
