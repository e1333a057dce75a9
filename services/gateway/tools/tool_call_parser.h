// ToolCallParser: an answer's text, told apart into what is said and the calls of tools in it. How the text is cut into pieces
// does not matter. White space around a call is no content; all else that is in no call is.
//   malformed  what opens like a call and is none, or calls a tool that was not offered, is content, to the byte: nothing is
//              lost. So a call is held back until it is whole, unless the answer is held to a grammar of calls (`certain`):
//              then name and arguments come as they are written, and a call that max_tokens cuts stays a beginning of one.
//   memory     the call that is being read.
// Pure; one thread at a time.
#pragma once

#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "services/gateway/tools/call_object.h"
#include "services/gateway/tools/tool_format.h"

namespace runahead {

struct OfferedTool {
  std::string name;
  std::set<std::string> text_fields;  // parameters that are strings: kXml does not write which are

  bool operator==(const OfferedTool&) const = default;
};

// How the calls of an answer are read. As JSON it is kept with a job.
struct ToolReading {
  ToolFormat format = ToolFormat::kHermes;
  bool certain = false;
  std::vector<OfferedTool> tools;

  bool operator==(const ToolReading&) const = default;
};
nlohmann::json to_json(const ToolReading& reading);
std::optional<ToolReading> tool_reading_of(const nlohmann::json& json);

struct ToolEvent {
  enum class Kind { kText, kCall, kArguments };
  Kind kind = Kind::kText;
  std::string text;  // kCall: the tool's name; kArguments: more of the JSON of the last call

  bool operator==(const ToolEvent&) const = default;
};

class ToolCallParser {
 public:
  explicit ToolCallParser(ToolReading reading) : reading_(std::move(reading)) {}

  // No two neighbours are of kind kText, or of kind kArguments.
  std::vector<ToolEvent> push(std::string_view text);
  std::vector<ToolEvent> flush();

 private:
  enum class State {
    kText,
    kOpened,  // behind what opens a call
    kNamed,  // in the name before the arguments
    kObject,
    kXml,
    kBehind,  // a call has ended: what closes it, or the next one of a list
  };

  void take(char c);
  void take_text(char c);
  void take_opened(char c);
  void take_named(char c);
  void take_object(char c);
  void take_xml(char c);
  void take_behind(char c);
  void open(char c);  // the object of a call
  void begin_object(CallObject object);
  void give_up(char c);  // it is none; c belongs to what follows
  void resume_text(char c);
  void emit_call(const std::string& name, std::string_view arguments);
  void show_begun();  // what is certain of a call that is not whole
  void emit(ToolEvent::Kind kind, std::string_view text);
  void emit_content(std::string_view text);
  std::string held_space();
  bool offers(std::string_view name) const;
  int depth_max() const { return reading_.certain ? std::numeric_limits<int>::max() : limits::kJsonDepthMax; }

  ToolReading reading_;
  State state_ = State::kText;
  std::string space_;  // held back: white space that a call may follow
  std::string marker_;  // held back: perhaps a beginning of what opens a call
  std::string raw_;  // of the call that is being read, with white space before it
  std::string named_;  // of those, what stands between its mark and its arguments
  std::string behind_;  // perhaps a beginning of what closes a call
  bool listed_ = false;  // calls are in a list
  bool began_ = false;  // content or a call has come
  bool after_call_ = false;  // nothing but white space has come since
  CallObject object_;
  bool shown_ = false;  // of object_: its name
  size_t shown_arguments_ = 0;
  std::vector<ToolEvent> events_;
};

}  // namespace runahead
