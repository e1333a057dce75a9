#include "services/gateway/tools/tool_call_parser.h"

#include <algorithm>
#include <utility>

#include "services/gateway/tools/xml_call.h"

namespace runahead {
namespace {

using nlohmann::json;

// A beginning of "name[ARGS]", or of "name[CALL_ID]id[ARGS]".
bool may_be_named(std::string_view text) {
  constexpr size_t kToolNameMax = 128, kIdMax = 64;
  const size_t name = text.find('[');
  if (name == std::string_view::npos)
    return text.size() <= kToolNameMax && text.find_first_of("{} \n\"") == std::string_view::npos;
  std::string_view behind = text.substr(name);
  if (name == 0 || kBeforeArguments.starts_with(behind) || kBeforeCallId.starts_with(behind)) return name > 0;
  if (!behind.starts_with(kBeforeCallId)) return false;
  behind.remove_prefix(kBeforeCallId.size());
  const size_t id = behind.find('[');
  return id == std::string_view::npos ? behind.size() <= kIdMax : kBeforeArguments.starts_with(behind.substr(id));
}

}  // namespace

json to_json(const ToolReading& reading) {
  json tools = json::array();
  for (const OfferedTool& tool : reading.tools)
    tools.push_back({{"name", tool.name}, {"text_fields", tool.text_fields}});
  return {{"format", name(reading.format)}, {"certain", reading.certain}, {"tools", std::move(tools)}};
}

std::optional<ToolReading> tool_reading_of(const json& stored) {
  if (!stored.is_object()) return {};
  const auto format = tool_format_named(stored.value("format", ""));
  if (!format) return {};
  ToolReading reading{*format, stored.value("certain", false), {}};
  for (const json& tool : stored.value("tools", json::array()))
    reading.tools.push_back({tool.value("name", ""), tool.value("text_fields", std::set<std::string>())});
  return reading;
}

std::vector<ToolEvent> ToolCallParser::push(std::string_view text) {
  for (const char c : text) take(c);
  if (reading_.certain && state_ == State::kObject) show_begun();
  return std::exchange(events_, {});
}

std::vector<ToolEvent> ToolCallParser::flush() {
  const bool is_cut = shown_;  // its beginning has been given
  if (state_ == State::kText) emit_content(held_space() + marker_);
  else if (state_ == State::kBehind && !reading_.certain) emit_content(behind_);
  else if (state_ != State::kBehind && !is_cut) emit_content(raw_);
  space_.clear(), marker_.clear(), behind_.clear(), raw_.clear();
  state_ = State::kText;
  return std::exchange(events_, {});
}

void ToolCallParser::take(char c) {
  switch (state_) {
    case State::kText:
      return take_text(c);
    case State::kOpened:
      return take_opened(c);
    case State::kNamed:
      return take_named(c);
    case State::kObject:
      return take_object(c);
    case State::kXml:
      return take_xml(c);
    case State::kBehind:
      return take_behind(c);
  }
}

void ToolCallParser::take_text(char c) {
  if (marker_.empty() && is_space(c)) {
    space_ += c;
    return;
  }
  const std::string_view opens = opening(reading_.format);
  if (marker_.empty() && c == '{' && reading_.format == ToolFormat::kLlama && !began_) {
    raw_ = held_space();
    return open(c);
  }
  if (opens.substr(marker_.size()).starts_with(c)) {
    marker_ += c;
    if (marker_.size() < opens.size()) return;
    raw_ = held_space() + std::exchange(marker_, {});
    listed_ = false;
    named_.clear();
    state_ = reading_.format == ToolFormat::kMistralArgs ? State::kNamed : State::kOpened;
    return;
  }
  if (!marker_.empty()) {  // its first byte opens nothing; what follows may
    const std::string held = std::exchange(marker_, {});
    emit_content(held_space() + held.front());
    for (const char again : held.substr(1)) take_text(again);
    return take_text(c);
  }
  emit_content(held_space() + c);
}

// White space that has become content, unless a call is before it.
std::string ToolCallParser::held_space() {
  std::string held = std::exchange(space_, {});
  return after_call_ ? std::string() : held;
}

void ToolCallParser::take_opened(char c) {
  const bool may_be_list = reading_.format == ToolFormat::kMistral || reading_.format == ToolFormat::kHermes;
  if (c == '{' && (listed_ || reading_.format != ToolFormat::kMistral) && reading_.format != ToolFormat::kXml)
    return open(c);
  if (c == '[' && may_be_list && !listed_) {
    listed_ = true;
  } else if (c == '<' && reading_.format == ToolFormat::kXml) {
    state_ = State::kXml;
  } else if (!is_space(c)) {
    return give_up(c);
  }
  raw_ += c;
}

void ToolCallParser::take_named(char c) {
  named_ += c;
  if (!may_be_named(named_)) return give_up(c);
  raw_ += c;
  if (!named_.ends_with(kBeforeArguments)) return;
  begin_object(CallObject::named(named_.substr(0, named_.find('[')), depth_max()));
}

void ToolCallParser::open(char c) {
  begin_object(CallObject(depth_max()));
  take_object(c);
}

void ToolCallParser::begin_object(CallObject object) {
  object_ = std::move(object);
  shown_ = false;
  shown_arguments_ = 0;
  state_ = State::kObject;
}

void ToolCallParser::take_object(char c) {
  const CallObject::State state = object_.push(c);
  const bool is_call = state == CallObject::State::kWhole && (shown_ || offers(*object_.name()));
  if (state != CallObject::State::kOpen && !is_call) return give_up(c);
  raw_ += c;
  if (state == CallObject::State::kOpen) return;
  if (shown_) show_begun();
  else emit_call(*object_.name(), object_.arguments());
  shown_ = false;
  state_ = State::kBehind;
  raw_.clear();
}

void ToolCallParser::take_xml(char c) {
  raw_ += c;
  const std::string_view call = std::string_view(raw_).substr(raw_.find('<', raw_.find(opening(reading_.format)) + 1));
  if (xml_call::may_begin(call)) return;
  if (!call.ends_with(xml_call::kEnd)) {
    if (call.size() > xml_call::kBegin.size()) return;
    raw_.pop_back();
    return give_up(c);
  }
  const auto read = xml_call::parse(call, reading_.tools);
  if (!read && xml_call::in_value(call)) return;
  if (!read) {
    raw_.pop_back();
    return give_up(c);
  }
  emit_call(read->name, read->arguments);
  state_ = State::kBehind;
  raw_.clear();
}

void ToolCallParser::take_behind(char c) {
  const std::string_view closes = closing(reading_.format);
  if (listed_ && behind_.empty()) {
    if (is_space(c)) return;
    if (c == ',') {
      raw_ = c;
      state_ = State::kOpened;
      return;
    }
    if (c == ']') {
      listed_ = false;
      if (closes.empty()) state_ = State::kText;
      return;
    }
  }
  if (reading_.format == ToolFormat::kLlama && (is_space(c) || c == ';')) return;
  if (reading_.format == ToolFormat::kLlama && c == '{') {
    raw_.clear();
    return open(c);
  }
  if (closes.empty() || (is_space(c) && behind_.empty())) {
    if (!closes.empty()) return;
    return resume_text(c);
  }
  if (!closes.substr(behind_.size()).starts_with(c)) return resume_text(c);
  behind_ += c;
  if (behind_ != closes) return;
  behind_.clear();
  state_ = State::kText;
}

void ToolCallParser::resume_text(char c) {
  state_ = State::kText;
  for (const char again : std::exchange(behind_, {})) take_text(again);
  take(c);
}

void ToolCallParser::give_up(char c) {
  state_ = State::kText;
  emit_content(std::exchange(raw_, {}));
  take(c);
}

void ToolCallParser::emit_call(const std::string& name, std::string_view arguments) {
  emit(ToolEvent::Kind::kCall, name);
  emit(ToolEvent::Kind::kArguments, arguments);
  began_ = after_call_ = true;
}

void ToolCallParser::show_begun() {
  const std::string_view arguments = object_.arguments();
  if (!object_.name() || arguments.empty() || !offers(*object_.name())) return;
  if (!std::exchange(shown_, true)) emit(ToolEvent::Kind::kCall, *object_.name());
  emit(ToolEvent::Kind::kArguments, arguments.substr(shown_arguments_));
  shown_arguments_ = arguments.size();
  began_ = after_call_ = true;
}

void ToolCallParser::emit(ToolEvent::Kind kind, std::string_view text) {
  const bool goes_on = !events_.empty() && events_.back().kind == kind && kind != ToolEvent::Kind::kCall;
  if (goes_on) events_.back().text += text;
  else if (!text.empty()) events_.push_back({kind, std::string(text)});
}

void ToolCallParser::emit_content(std::string_view text) {
  if (text.empty()) return;
  emit(ToolEvent::Kind::kText, text);
  began_ = true;
  after_call_ = false;
}

bool ToolCallParser::offers(std::string_view name) const {
  return std::ranges::find(reading_.tools, name, &OfferedTool::name) != reading_.tools.end();
}

}  // namespace runahead
