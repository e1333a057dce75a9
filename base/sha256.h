// SHA-256 of bytes, and bytes as hex digits. Pure; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace runahead {

inline constexpr size_t kSha256Bytes = 32;
using Sha256 = std::array<char, kSha256Bytes>;

Sha256 sha256(std::span<const std::byte> bytes);
inline Sha256 sha256(std::string_view text) { return sha256(std::as_bytes(std::span(text))); }

std::string hex(std::string_view bytes);  // lower case, two digits a byte
inline std::string hex(const Sha256& digest) { return hex(std::string_view(digest.data(), digest.size())); }

}  // namespace runahead
