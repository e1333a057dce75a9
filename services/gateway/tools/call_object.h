// CallObject: one call as a model writes it, {"name": "f", "arguments": {...}}, read byte by byte. It knows where the object ends
// without parsing it again and again, and gives the arguments exactly as they were written. Pure; one thread at a time.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/limits.h"

namespace runahead {

inline bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }  // JSON's

class CallObject {
 public:
  enum class State {
    kOpen,
    kWhole,  // the last byte closed it, and it is a call
    kBroken,  // no call can become of it
  };

  // Arguments that nest deeper than `depth_max` are none: no request could bring them back.
  explicit CallObject(int depth_max = limits::kJsonDepthMax) : depth_max_(depth_max) {}

  // Of a call whose name stands before it: only its arguments follow.
  static CallObject named(std::string_view name, int depth_max = limits::kJsonDepthMax);

  State push(char c);  // the first one is '{'; nothing after kWhole or kBroken

  const std::optional<std::string>& name() const { return name_; }  // once it is known
  // What is there of the arguments' object, as written; empty before it begins.
  std::string_view arguments() const;

 private:
  void take(char c);
  std::string_view part(size_t end) const;
  void begin_part(char c);
  void end_field();
  State close();

  std::string text_;
  int depth_max_;
  bool is_named_ = false;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
  bool in_value_ = false;  // of a field of the object itself, else before or in its name
  std::string key_;
  size_t part_begin_ = 0;  // the first byte of the field's name or value
  bool part_begun_ = false;
  std::optional<std::string> name_;
  std::optional<std::string> other_arguments_;  // what stood there and was no object: some models write it as a string
  size_t arguments_begin_ = 0, arguments_end_ = 0;  // end 0: not yet
  bool arguments_begun_ = false;
};

}  // namespace runahead
