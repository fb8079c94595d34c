-- For wrk: posts the file that BODY names with the lines of HEADERS, after each answer again, PAUSE milliseconds later
-- where that is not 0, and prints what came of it as one line of JSON. Where DIFFERENT names some digits that are in the
-- file, each request has its own number in their place.
wrk.method = "POST"
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.body = file:read("*all")
file:close()
for name, value in os.getenv("HEADERS"):gmatch("([^:\n]+): ([^\n]+)") do
  wrk.headers[name] = value
end

local digits = os.getenv("DIFFERENT")
if digits ~= "" then
  local first, last = wrk.body:find(digits, 1, true)
  local before, after = wrk.body:sub(1, first - 1), wrk.body:sub(last + 1)
  local form, number = string.format("%%0%dd", #digits), 0
  function request()
    number = number + 1
    return wrk.format(nil, nil, nil, before .. string.format(form, number) .. after)
  end
end

local pause = tonumber(os.getenv("PAUSE"))
if pause > 0 then
  function delay()
    return pause
  end
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %f, "median": %f, "p99": %f, "longest": %f, "refused": %d, "late": %d, "broken": %d}',
    summary.requests - errors.status, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.status, errors.timeout, errors.connect + errors.read + errors.write))
end
