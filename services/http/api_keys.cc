#include "services/http/api_keys.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <string>

#include "base/limits.h"

namespace runahead {
namespace {

// What follows the scheme and its spaces.
std::string_view key_of(std::string_view authorization) {
  authorization.remove_prefix(std::min(authorization.find(' '), authorization.size()));
  authorization.remove_prefix(std::min(authorization.find_first_not_of(' '), authorization.size()));
  return authorization;
}

}  // namespace

Result<ApiKeys> ApiKeys::load(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) return fail(ErrorCode::kNotFound, "cannot open the file of API keys " + path.string(), "api-keys");
  ApiKeys keys;
  for (std::string line; std::getline(file, line);) {
    constexpr const char* kBlanks = " \t\r";
    line.erase(line.find_last_not_of(kBlanks) + 1);
    line.erase(0, line.find_first_not_of(kBlanks));
    if (line.empty() || line.front() == '#') continue;
    if (line.size() > limits::kApiKeyBytesMax || keys.digests_.size() >= limits::kApiKeysMax)
      return fail(ErrorCode::kInvalidConfig, path.string() + " has a key over 512 bytes or over 10,000 keys",
                  "api-keys");
    keys.digests_.push_back(sha256(line));
  }
  if (keys.digests_.empty())
    return fail(ErrorCode::kInvalidConfig, path.string() + " has no key; write one key a line", "api-keys");
  return keys;
}

bool ApiKeys::accepts(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer";  // in any case (RFC 9110, 11.1), then spaces and the key
  const std::string_view scheme = authorization.substr(0, kScheme.size());
  const bool is_bearer = std::ranges::equal(scheme, kScheme, {}, [](unsigned char c) { return std::tolower(c); });
  std::string_view key = authorization.substr(scheme.size());
  if (!is_bearer || !key.starts_with(' ')) return false;
  key.remove_prefix(std::min(key.find_first_not_of(' '), key.size()));
  if (key.size() > limits::kApiKeyBytesMax) return false;
  const auto digest = sha256(key);
  bool found = false;
  for (const auto& known : digests_) found |= CRYPTO_memcmp(known.data(), digest.data(), digest.size()) == 0;
  return found;
}

std::string ApiKeys::owner_of(std::string_view authorization) {
  constexpr size_t kOwnerDigits = 16;
  const Sha256 digest = sha256("owner " + std::string(key_of(authorization)));  // not the digest that is compared
  return hex(digest).substr(0, kOwnerDigits);
}

}  // namespace runahead
