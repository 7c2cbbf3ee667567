// The one type native code throws. The addon catches it once, at the language border, and hands `code`, text and place to JavaScript.
#pragma once

#include <exception>
#include <source_location>
#include <string>
#include <utility>

namespace lomo {

// `code` is a CamelCase noun for programs; `text` names the thing, the place and the next step.
class Error : public std::exception {
 public:
  Error(std::string code, std::string text, const std::source_location& at = std::source_location::current())
      : code_(std::move(code)), text_(std::move(text)), file_(at.file_name()), line_(static_cast<int>(at.line())) {}
  Error(std::string code, std::string text, const char* file, int line)
      : code_(std::move(code)), text_(std::move(text)), file_(file), line_(line) {}

  const char* what() const noexcept override { return text_.c_str(); }
  const std::string& code() const noexcept { return code_; }
  const std::string& text() const noexcept { return text_; }
  const char* file() const noexcept { return file_; }  // static storage: __FILE__ or std::source_location
  int line() const noexcept { return line_; }

 private:
  std::string code_, text_;
  const char* file_;
  int line_;
};

}  // namespace lomo
