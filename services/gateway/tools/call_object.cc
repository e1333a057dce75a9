#include "services/gateway/tools/call_object.h"

#include <nlohmann/json.hpp>

namespace runahead {
namespace {

using nlohmann::json;

// What JSON has outside of strings. The rest is told at once: an answer that goes on as text is not held back to its end.
bool is_outside_strings(char c) {
  return is_space(c) || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == 'E' ||
         std::string_view("{}[]:,\"+-.").find(c) != std::string_view::npos;
}

std::optional<std::string> string_of(std::string_view text) {
  const json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  return value.is_string() ? std::optional(value.get<std::string>()) : std::nullopt;
}

bool is_arguments(std::string_view key) { return key == "arguments" || key == "parameters"; }

}  // namespace

std::string_view CallObject::arguments() const {
  if (other_arguments_) return *other_arguments_;
  if (!arguments_begun_) return {};
  const size_t end = arguments_end_ > 0 ? arguments_end_ : text_.size();
  return std::string_view(text_).substr(arguments_begin_, end - arguments_begin_);
}

CallObject CallObject::named(std::string_view name, int depth_max) {
  CallObject object(depth_max);
  for (const char c : R"({"name": ")" + std::string(name) + R"(", "arguments": )") object.push(c);
  object.is_named_ = true;
  return object;
}

CallObject::State CallObject::push(char c) {
  if (!in_string_ && !is_outside_strings(c)) return State::kBroken;
  text_ += c;
  take(c);
  if (depth_ - 1 > depth_max_) return State::kBroken;
  if (is_named_ && !arguments_begun_ && !is_space(c)) return State::kBroken;
  if (is_named_ && arguments_end_ > 0) {
    text_ += '}';
    return close();
  }
  return depth_ == 0 ? close() : State::kOpen;
}

void CallObject::take(char c) {
  if (in_string_) {
    if (escaped_) escaped_ = false;
    else if (c == '\\') escaped_ = true;
    else if (c == '"') in_string_ = false;
    return;
  }
  if (depth_ == 1 && c == ':' && !in_value_) {
    key_ = string_of(part(text_.size() - 1)).value_or("");
    in_value_ = true;
    part_begun_ = false;
    return;
  }
  if (depth_ == 1 && (c == ',' || c == '}')) end_field();
  else if (depth_ == 1 && !part_begun_ && !is_space(c)) begin_part(c);
  if (c == '"') in_string_ = true;
  if (c == '{' || c == '[') ++depth_;
  if (c == '}' || c == ']') --depth_;
  if (depth_ == 1 && c == '}' && arguments_begun_ && arguments_end_ == 0) arguments_end_ = text_.size();
}

std::string_view CallObject::part(size_t end) const {
  return std::string_view(text_).substr(part_begin_, end - part_begin_);
}

void CallObject::begin_part(char c) {
  part_begun_ = true;
  part_begin_ = text_.size() - 1;
  if (!in_value_ || c != '{' || arguments_begun_ || !is_arguments(key_)) return;
  arguments_begun_ = true;
  arguments_begin_ = part_begin_;
}

void CallObject::end_field() {
  if (in_value_ && part_begun_) {
    const std::string_view value = part(text_.size() - 1);
    if (key_ == "name" && !name_) name_ = string_of(value);
    if (is_arguments(key_) && !arguments_begun_) other_arguments_ = string_of(value).value_or(std::string(value));
  }
  in_value_ = part_begun_ = false;
}

CallObject::State CallObject::close() {
  if (!name_ || !json::accept(text_)) return State::kBroken;
  const bool none = !arguments_begun_ && (!other_arguments_ || other_arguments_->empty() || other_arguments_ == "null");
  if (none) other_arguments_ = "{}";
  return arguments().starts_with('{') && json::accept(arguments()) ? State::kWhole : State::kBroken;
}

}  // namespace runahead
