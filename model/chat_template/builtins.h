// Methods, filters and tests that chat templates can use. Names that are not built end with kUnsupported.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "model/chat_template/value.h"

namespace runahead::jinja {

// The bound method `name` of a string, list or dict; nothing if there is none. Methods that would change a list or dict
// are undefined with the sandbox's reason.
std::optional<Value> method(const Value& object, std::string_view name, Budget& budget);

Result<Value> apply_filter(std::string_view name, const Value& input, const Args& args, Budget& budget);
Result<bool> apply_test(std::string_view name, const Value& input, const Args& args, Budget& budget);

// What they are made of: string_methods.cc, text_filters.cc, number_filters.cc and sequence_filters.cc hold a table each.
using Builtin = Result<Value> (*)(const Value& self, const Args& args, Budget& budget);
using Builtins = std::unordered_map<std::string_view, Builtin>;
const Builtins& string_methods();
const Builtins& text_filters();
const Builtins& number_filters();
const Builtins& sequence_filters();

// Arguments by position or name; absent ones take the fallback, or are an error without one.
Result<std::string> string_argument(const Args& args, size_t index, std::string_view name,
                                    std::optional<std::string> fallback = {});
Result<int64_t> int_argument(const Args& args, size_t index, std::string_view name,
                             std::optional<int64_t> fallback = {});
bool bool_argument(const Args& args, size_t index, std::string_view name, bool fallback);

// The value at a dotted path such as "function.name" or at an index; null `path` is the value itself.
Result<Value> at_path(const Value& value, const Value* path, const Value* fallback, Budget& budget);

// str.find from byte `from`, charged by what it scans; npos if absent.
size_t find_text(std::string_view text, std::string_view part, size_t from, Budget& budget);
// str.replace with at most `count` replacements (-1: all).
std::string replace_text(std::string_view text, std::string_view from, std::string_view to, int64_t count,
                         Budget& budget);
// str.splitlines.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends = false);

}  // namespace runahead::jinja
