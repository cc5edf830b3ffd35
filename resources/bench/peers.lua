-- Requests for wrk: the same users, read and written by the way of each store.
-- Arguments after "--": store (corro, webdis, etcd), operation (read, write), number of users, seed.

local store, operation, users, head, counter

local function id(number)
  return string.format("00000000-0000-4000-8000-%012x", number)
end

-- 120 bytes, as the other stores keep it.
local function user(number, group)
  return string.format('{"id":"%s","name":"Ada Lovelace %06d","email":"u%08d@example.org","group":%d}',
    id(number), number % 1000000, number % 100000000, group)
end

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local function base64(text)
  local parts = {}
  for place = 1, #text, 3 do
    local a, b, c = text:byte(place, place + 2)
    local bits = a * 65536 + (b or 0) * 256 + (c or 0)
    local function sextet(shift)
      local index = math.floor(bits / shift) % 64
      return alphabet:sub(index + 1, index + 1)
    end
    parts[#parts + 1] = sextet(262144) .. sextet(4096)
    parts[#parts + 1] = (b and sextet(64) or "=") .. (c and sextet(1) or "=")
  end
  return table.concat(parts)
end

local function send(method, path, body)
  if not body then
    return method .. " " .. path .. head .. "\r\n"
  end
  head = head .. "Content-Type: application/json\r\nContent-Length: " .. #body
  return method .. " " .. path .. head .. "\r\n\r\n" .. body
end

local any = {}

any.corro = {
  read = function(number) return send("GET", "/api/user/" .. id(number)) end,
  write = function(number, group)
    local form = '{"id":"%s","name":"Ada Lovelace %06d","email":"u%08d@example.org","group":%d}'
    return send("PUT", "/api/user/", string.format(form,
      id(number), number % 1000000, number % 100000000, group))
  end,
}

any.webdis = {
  read = function(number) return send("GET", "/GET/" .. id(number) .. ".json") end,
  write = function(number, group) return send("PUT", "/SET/" .. id(number), user(number, group)) end,
}

any.etcd = {
  read = function(number) return send("POST", "/v3/kv/range", '{"key":"' .. base64(id(number)) .. '"}') end,
  write = function(number, group)
    local key, value = base64(id(number)), base64(user(number, group))
    return send("POST", "/v3/kv/put", '{"key":"' .. key .. '","value":"' .. value .. '"}')
  end,
}

function init(args)
  store, operation, users = args[1], args[2], tonumber(args[3])
  math.randomseed(tonumber(args[4]))
  head = " HTTP/1.1\r\nHost: " .. wrk.host .. "\r\n"
  -- Enough requests for variety, made beforehand: what the generator takes is taken from the store.
  counter = 0
  requests = {}
  for place = 1, 20000 do
    requests[place] = any[store][operation](math.random(0, users - 1), 10000 + place)
  end
end

function request()
  counter = counter % #requests + 1
  return requests[counter]
end
