// ApiKeys: who may call. A file with one key a line ('#' begins a comment); only SHA-256 digests stay in memory, and
// every comparison looks at every digest whole, so that its time says nothing about the keys.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/sha256.h"

namespace runahead {

class ApiKeys {
 public:
  // kNotFound, kInvalidConfig (no key in it, a key too long, too many keys).
  static Result<ApiKeys> load(const std::filesystem::path& path);

  // `authorization` is the header's value: "Bearer KEY".
  bool accepts(std::string_view authorization) const;
  // A name for the key's holder that does not tell the key, and stays the same: 16 hex digits. Jobs are kept under it.
  static std::string owner_of(std::string_view authorization);
  size_t size() const { return digests_.size(); }
  bool operator==(const ApiKeys&) const = default;  // of digests: not for what a client sends

 private:
  std::vector<Sha256> digests_;
};

}  // namespace runahead
