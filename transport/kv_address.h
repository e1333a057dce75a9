// What can be seen of KvTransport::address() without its transport.
#pragma once

#include <string_view>

namespace runahead {

// Is it an address of loopback, which means another machine to each who reads it?
bool leads_to_own_machine(std::string_view kv_address);

}  // namespace runahead
