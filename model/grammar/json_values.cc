// JsonSchemaWriter: strings, numbers, lists, and JSON of any kind.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "base/json_text.h"
#include "base/limits.h"
#include "model/grammar/code_points.h"
#include "model/grammar/json_numbers.h"
#include "model/grammar/json_schema.h"
#include "model/grammar/pattern.h"

namespace runahead::grammar {
namespace {

using Json = JsonSchemaWriter::Json;
using namespace std::string_view_literals;

// JSON Schema 2020-12, section 7.3, by the RFCs it names; of what they allow, what is common and of bounded length.
const std::map<std::string, std::string, std::less<>>& formats() {
  static const auto patterns = [] {
    const std::string date = R"(\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01]))";
    const std::string time = R"(([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d))";
    const std::string days = R"((\d{1,9}Y(\d{1,9}M(\d{1,9}D)?)?|\d{1,9}M(\d{1,9}D)?|\d{1,9}D))";
    const std::string clock = R"((T(\d{1,9}H(\d{1,9}M(\d{1,9}S)?)?|\d{1,9}M(\d{1,9}S)?|\d{1,9}S)))";
    const std::string label = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
    const std::string byte = R"((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))";
    const std::string group = "[0-9a-fA-F]{1,4}", groups = group + "(:" + group + ")";
    const std::string part = "[A-Za-z0-9_%+-]{1,32}";
    const auto whole = [](const std::string& text) { return "^(" + text + ")$"; };
    return std::map<std::string, std::string, std::less<>>{
        {"date", whole(date)},
        {"time", whole(time)},
        {"date-time", whole(date + "T" + time)},
        {"duration", whole("P(" + days + clock + "?|" + clock + R"(|\d{1,9}W))")},
        {"email", whole(part + "(\\." + part + ")?@" + label + "(\\." + label + "){1,4}")},
        {"hostname", whole(label + "(\\." + label + "){0,3}")},
        {"ipv4", whole(byte + "(\\." + byte + "){3}")},
        {"ipv6", whole(groups + "{7}|(" + groups + "{0,2})?::(" + groups + "{0,3})?")},
        {"uuid", whole("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")},
    };
  }();
  return patterns;
}

std::string format_names() {
  std::string names;
  for (const auto& [name, pattern] : formats()) names += (names.empty() ? "" : ", ") + name;
  return names;
}

}  // namespace

// ---- JSON of any kind ----

Rule JsonSchemaWriter::kept(std::optional<Rule>& rule, const std::function<void(Node, Node)>& write) {
  if (rule) return *rule;
  rule = automaton_.rule();  // before it is written: it may hold itself
  write(automaton_.begin(*rule), automaton_.end(*rule));
  return *rule;
}

Rule JsonSchemaWriter::blank() {
  return kept(blank_, [this](Node from, Node to) {
    automaton_.skip(from, to);
    automaton_.read(from, ' ', ' ', to);
    Node at = automaton_.text(from, "\n");
    for (int i = 0; i < kIndentMax; ++i) {
      automaton_.skip(at, to);
      const Node next = automaton_.node();
      automaton_.read(at, ' ', ' ', next);
      automaton_.read(at, '\t', '\t', next);
      at = next;
    }
    automaton_.skip(at, to);
  });
}

Rule JsonSchemaWriter::character() {
  return kept(character_, [this](Node from, Node to) { read_any_in_string(automaton_, from, to); });
}

Rule JsonSchemaWriter::any_string() {
  return kept(any_string_, [this](Node from, Node to) {
    const Node inside = automaton_.text(from, "\"");
    read_any_in_string(automaton_, inside, inside);
    automaton_.read(inside, '"', '"', to);
  });
}

Rule JsonSchemaWriter::any_number() {
  return kept(any_number_, [this](Node from, Node to) { (void)read_number(automaton_, from, {}, to); });
}

Rule JsonSchemaWriter::any_list() {
  return kept(any_list_, [this](Node from, Node to) {
    const Node first = blank(automaton_.text(from, "["));
    automaton_.read(first, ']', ']', to);
    const Node behind = automaton_.call(first, any_value());
    automaton_.call(blank(automaton_.text(behind, ",")), any_value(), behind);
    automaton_.read(blank(behind), ']', ']', to);
  });
}

Rule JsonSchemaWriter::any_object() {
  return kept(any_object_, [this](Node from, Node to) {
    const Node first = blank(automaton_.text(from, "{"));
    automaton_.read(first, '}', '}', to);
    const auto field = [this](Node at) { return blank(automaton_.text(automaton_.call(at, any_string()), ":")); };
    const Node behind = automaton_.call(field(first), any_value());
    automaton_.call(field(blank(automaton_.text(behind, ","))), any_value(), behind);
    automaton_.read(blank(behind), '}', '}', to);
  });
}

Rule JsonSchemaWriter::any_value() {
  return kept(any_value_, [this](Node from, Node to) {
    automaton_.call(from, any_object(), to);
    automaton_.call(from, any_list(), to);
    automaton_.call(from, any_string(), to);
    automaton_.call(from, any_number(), to);
    automaton_.skip(automaton_.one_of(from, {"true", "false", "null"}), to);
  });
}

// ---- by a schema ----

Result<std::pair<int, std::optional<int>>> JsonSchemaWriter::counts(const Place& place, const char* least,
                                                                    const char* most) {
  std::pair<int, std::optional<int>> range{0, {}};
  for (const char* name : {least, most}) {
    const auto field = place.schema.find(name);
    if (field == place.schema.end()) continue;
    if (!field->is_number() || field->get<double>() < 0 || std::floor(field->get<double>()) != field->get<double>())
      return place.refuse(ErrorCode::kInvalidArgument, name, "must be a whole number from 0 up");
    if (field->get<double>() > limits::kGrammarRepeatMax)
      return place.refuse(
          ErrorCode::kUnsupported, name,
          "is over " + std::to_string(limits::kGrammarRepeatMax) + ", which is not supported; leave it out");
    (name == least ? range.first : range.second.emplace()) = field->get<int>();
  }
  if (range.second && *range.second < range.first)
    return place.refuse(ErrorCode::kInvalidArgument, most, "is below " + std::string(least));
  return range;
}

Result<void> JsonSchemaWriter::write_string(const Place& place, Node from, Node to) {
  const Json& schema = place.schema;
  const bool counted = schema.contains("minLength") || schema.contains("maxLength");
  const bool has_pattern = schema.contains("pattern"), has_format = schema.contains("format");
  if (counted + has_pattern + has_format > 1)
    return place.refuse(ErrorCode::kUnsupported, has_pattern ? "pattern" : "format",
                        "together with another bound of the text is not supported; say it all in one pattern");
  if (!counted && !has_pattern && !has_format) return automaton_.call(from, any_string(), to), Result<void>{};
  const Node inside = automaton_.text(from, "\""), behind = automaton_.node();
  automaton_.read(behind, '"', '"', to);
  if (!counted) return write_pattern(place, has_pattern, inside, behind);
  const auto [least, most] = TRY(counts(place, "minLength", "maxLength"));
  Node at = inside;
  for (int i = 0; i < least; ++i) at = automaton_.call(at, character());
  automaton_.skip(at, behind);
  if (!most) automaton_.call(at, character(), at);
  for (int i = least; i < most.value_or(0); ++i) {
    at = automaton_.call(at, character());
    automaton_.skip(at, behind);
  }
  return {};
}

Result<void> JsonSchemaWriter::write_pattern(const Place& place, bool own, Node from, Node to) {
  const char* field = own ? "pattern" : "format";
  const Json& value = place.schema[field];
  if (!value.is_string()) return place.refuse(ErrorCode::kInvalidArgument, field, "must be a text");
  std::string_view pattern = value.get_ref<const std::string&>();
  if (!own) {
    const auto known = formats().find(pattern);
    if (known == formats().end())
      return place.refuse(ErrorCode::kUnsupported, field, "is not supported; those are " + format_names());
    pattern = known->second;
  }
  const Result<void> written = read_pattern(automaton_, from, pattern, to);
  if (!written) return place.refuse(written.error().code, field, written.error().message);
  return {};
}

Result<void> JsonSchemaWriter::write_number(const Place& place, bool whole, Node from, Node to) {
  NumberRange range{.whole = whole};
  constexpr std::array kBounds = {"minimum"sv, "exclusiveMinimum"sv, "maximum"sv, "exclusiveMaximum"sv};
  for (size_t i = 0; i < kBounds.size(); ++i) {
    const auto field = place.schema.find(std::string(kBounds[i]));
    if (field == place.schema.end()) continue;
    if (!field->is_number()) return place.refuse(ErrorCode::kInvalidArgument, kBounds[i], "must be a number");
    std::optional<Bound>& bound = i < 2 ? range.low : range.high;
    if (bound)
      return place.refuse(ErrorCode::kUnsupported, kBounds[i],
                          "beside the other bound of that side is not supported; keep one");
    const Result<Bound> parsed = Bound::parse(to_ordered_text(*field), i % 2 == 0);
    if (!parsed) return place.refuse(parsed.error().code, kBounds[i], parsed.error().message);
    bound = *parsed;
  }
  if (const auto multiple = place.schema.find("multipleOf"); multiple != place.schema.end()) {
    if (*multiple != Json(1))
      return place.refuse(ErrorCode::kUnsupported, "multipleOf", "other than 1 is not supported");
    range.whole = true;
  }
  const Result<void> written = read_number(automaton_, from, range, to);
  if (!written) return place.refuse(written.error().code, range.high ? "maximum" : "minimum", written.error().message);
  return {};
}

Result<void> JsonSchemaWriter::write_list(const Place& place, Node from, Node to) {
  const Json& schema = place.schema;
  const auto [least, most] = TRY(counts(place, "minItems", "maxItems"));
  std::vector<Rule> first;
  if (const auto prefix = schema.find("prefixItems"); prefix != schema.end()) {
    if (!prefix->is_array())
      return place.refuse(ErrorCode::kInvalidArgument, "prefixItems", "must be a list of schemas");
    for (const Json& entry : *prefix)
      first.push_back(rule_of({entry, place.under("prefixItems") + "[" + std::to_string(first.size()) + "]"}));
  }
  const auto items = schema.find("items");
  const bool no_more = items != schema.end() && items->is_boolean() && !items->get<bool>();
  const Rule each = items == schema.end() || no_more ? any_value() : rule_of({*items, place.under("items")});
  const int known = static_cast<int>(first.size());
  const std::optional<int> end = no_more ? std::min(most.value_or(known), known) : most;
  if (end && *end < least) return place.refuse(ErrorCode::kInvalidArgument, "minItems", "is more than there can be");

  Node at = blank(automaton_.text(from, "["));  // before an item
  if (least == 0) automaton_.read(at, ']', ']', to);
  const int written =
      end.value_or(std::max({least, known + 1, 1}));  // the last of them again and again, if there is no end
  for (int i = 0; i < written && !automaton_.full(); ++i) {
    const Node behind = automaton_.call(at, i < known ? first[static_cast<size_t>(i)] : each);
    if (i + 1 >= least) automaton_.read(blank(behind), ']', ']', to);
    if (end && i + 1 == *end) break;
    at = blank(automaton_.text(behind, ","));
    if (i + 1 == written) automaton_.call(at, each, behind);
  }
  return {};
}

}  // namespace runahead::grammar
