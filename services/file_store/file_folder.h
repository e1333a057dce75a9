// What a FileStore keeps on the disk: plain files in one folder, each whole or not there.
//   NAME.data      the bytes of a file            NAME.json    what is known of it, or a record, with a CRC32C in its first line
//   NAME.part      a file that still grows        NAME.damaged what was found damaged, kept for people
// A .json is written under another name, synced and renamed, and so is a .data: its .json comes last, and goes first.
//   threads one at a time; blocking. Errors: kUnavailable with the reason (a full disk, no permission).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead {

class FileFolder {
 public:
  explicit FileFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  struct Loaded {
    std::map<std::string, std::string> json;  // that is whole, by name
    std::set<std::string> contents;  // names of data and parts
    std::vector<std::string> damage;  // a sentence for each .json that is not whole, and is set aside
  };
  Result<Loaded> load();
  Result<void> put_json(const std::string& name, const std::string& text);
  void remove_json(const std::string& name);

  Result<void> write(const std::string& name, std::string_view bytes);
  void remove(const std::string& name);  // data and part
  Result<std::string> read(const std::string& name, uint64_t offset, size_t bytes) const;  // of data; fewer at its end
  struct Content {
    uint64_t bytes = 0;
    uint32_t check = 0;  // CRC32C
  };
  Result<Content> content(const std::string& name) const;  // reads it whole
  bool has_data(const std::string& name) const;
  void set_aside(const std::string& name);

  // A part's lines in order, each whole, until one is not or is refused: the rest goes.
  Result<void> recover_part(const std::string& name, const std::function<bool(std::string_view line)>& take);
  Result<void> append(const std::string& name, std::string_view bytes);  // all or nothing
  Result<void> finish_part(const std::string& name);  // becomes data; nothing if it has

 private:
  std::filesystem::path path(const std::string& name, const char* ending) const { return folder_ / (name + ending); }

  std::filesystem::path folder_;
};

}  // namespace runahead
