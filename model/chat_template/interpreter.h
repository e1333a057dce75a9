// Renders a parsed chat template: one Interpreter, one render, one thread. The tree is not changed and may be shared.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/chat_template/ast.h"
#include "model/chat_template/value.h"

namespace runahead::jinja {

class Interpreter {
 public:
  explicit Interpreter(Budget& budget);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // A variable the template can read. Later ones win.
  void define(const std::string& name, Value value) { scope_->set(name, std::move(value), budget_); }
  Result<std::string> run(const Block& block);
  // The line of the template that was worked on last, for messages about errors.
  int line() const { return line_; }

 private:
  struct Scope {
    std::shared_ptr<Scope> parent;
    std::vector<std::pair<std::string, Value>> variables;

    const Value* find(std::string_view name, Budget& budget) const;
    void set(const std::string& name, Value value, Budget& budget);
  };
  using ScopePtr = std::shared_ptr<Scope>;
  enum class Flow { kNext, kBreak, kContinue };
  class ScopeGuard;
  // Counts nesting, so that hostile templates cannot exhaust the stack.
  class DepthGuard {
   public:
    explicit DepthGuard(Interpreter& interpreter) : interpreter_(interpreter) { ++interpreter_.depth_; }
    ~DepthGuard() { --interpreter_.depth_; }
    DepthGuard(const DepthGuard&) = delete;

    Result<void> check() const {
      if (interpreter_.depth_ <= limits::kTemplateDepthMax && interpreter_.budget_.spend(1)) return {};
      TRY(interpreter_.budget_.check());
      return fail(ErrorCode::kTooLarge, "the chat template nests blocks, expressions or macro calls too deeply");
    }

   private:
    Interpreter& interpreter_;
  };

  Result<Flow> execute(const Block& block);
  Result<Flow> execute(const Stmt& stmt);
  Result<Flow> execute_if(const Stmt& stmt);
  Result<void> execute_set(const Stmt& stmt);
  Result<void> execute_call_block(const Stmt& stmt);
  Result<Flow> execute_with(const Stmt& stmt);
  Result<void> execute_for(const Stmt& stmt, const Value& iterable, int depth);
  Result<List> loop_items(const Stmt& stmt, const Value& iterable);
  Result<void> assign(const Target& target, Value value);
  Result<void> write(std::string_view text);
  Result<std::string> capture(const Block& block);

  Value make_macro(const Stmt& stmt);
  Result<Value> call_macro(const Stmt& stmt, const Args& args);
  Result<void> bind_parameters(const Stmt& stmt, const Args& args);
  Result<void> bind_extras(const Stmt& stmt, const Args& args);

  Result<Value> evaluate(const Expr& expr);
  Result<Value> evaluate_parts(const Expr& expr);
  Result<Value> evaluate_name(const Expr& expr);
  Result<Value> evaluate_list(const Expr& expr);
  Result<Value> evaluate_dict(const Expr& expr);
  Result<Value> evaluate_slice(const Expr& expr);
  Result<Value> evaluate_call(const Expr& expr);
  Result<Value> evaluate_filter(const Expr& expr, const Value* input);
  Result<Value> evaluate_arithmetic(const Expr& expr);
  Result<Value> evaluate_concat(const Expr& expr);
  Result<Value> evaluate_logic(const Expr& expr);
  Result<Value> evaluate_compare(const Expr& expr);
  Result<Value> evaluate_conditional(const Expr& expr);
  Result<Args> evaluate_arguments(const Expr& expr);
  Result<Value> call(const Value& callee, const Args& args);

  void define_globals();

  Budget& budget_;
  ScopePtr scope_ = std::make_shared<Scope>();
  std::string out_;
  int line_ = 1;
  int depth_ = 0;
  // Scopes that callables hold, and namespaces: they may form cycles, so the destructor empties them.
  std::vector<ScopePtr> kept_scopes_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace runahead::jinja
