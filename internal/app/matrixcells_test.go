package app_test

// tables are the matrix of access: for each way of asking and each client what it gets. "named elsewhere" asks for the image's layer in
// another repository, whose manifest names it and whose registry does not have it there; "also elsewhere" in one that has it. For
// "joined" the download of the layer runs.
var tables = []table{
	{mode: "public", image: "public", ns: false, cells: `
                 | anonymous                    | A                            | B                            | revoked
tag              | 200 2 / 200 1                | 200 2 / 200 1                | 200 2 / 200 1                | 401 login-refused
tag HEAD         | 200 1                        | 200 1                        | 200 1                        | 401 login-refused
digest           | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 401 login-refused
blob             | 200 2 / 200                  | 200 2 / 200                  | 200 2 / 200                  | 401 login-refused
blob HEAD        | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 401 login-refused
range            | 206 2 / 206                  | 206 2 / 206                  | 206 2 / 206                  | 401 login-refused
referrers        | 200 1                        | 200 1                        | 200 1                        | 401 login-refused
tags/list        | 200 1                        | 200 1                        | 200 1                        | 401 login-refused
named elsewhere  | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200 | 401 login-refused
also elsewhere   | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 401 login-refused
warmed           | 200 1                        | 200 1                        | 200 1                        | 401 login-refused
joined           | 200                          | 200                          | 200                          | 401 login-refused
joined elsewhere | 404 digest-not-found 1       | 404 digest-not-found 1       | 404 digest-not-found 1       | 401 login-refused
stale            | 200                          | 200                          | 200                          | 401 login-refused
stale digest     | 200                          | 200                          | 200                          | 401 login-refused
stale blob       | 200                          | 200                          | 200                          | 401 login-refused
`},
	{mode: "public", image: "public", ns: true, cells: `
                 | anonymous                    | A                            | B                            | revoked
tag              | 200 2 / 200 1                | 200 2 / 200 1                | 200 2 / 200 1                | 200 2 / 200 1
tag HEAD         | 200 1                        | 200 1                        | 200 1                        | 200 1
digest           | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200
blob             | 200 2 / 200                  | 200 2 / 200                  | 200 2 / 200                  | 200 2 / 200
blob HEAD        | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200
range            | 206 2 / 206                  | 206 2 / 206                  | 206 2 / 206                  | 206 2 / 206
referrers        | 200 1                        | 200 1                        | 200 1                        | 200 1
tags/list        | 200 1                        | 200 1                        | 200 1                        | 200 1
named elsewhere  | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200
also elsewhere   | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200
warmed           | 200 1                        | 200 1                        | 200 1                        | 200 1
joined           | 200                          | 200                          | 200                          | 200
joined elsewhere | 404 digest-not-found 1       | 404 digest-not-found 1       | 404 digest-not-found 1       | 404 digest-not-found 1
stale            | 200                          | 200                          | 200                          | 200
stale digest     | 200                          | 200                          | 200                          | 200
stale blob       | 200                          | 200                          | 200                          | 200
`},
	{mode: "public", image: "private", ns: false, cells: `
                 | anonymous                    | A                            | B                            | revoked
tag              | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
tag HEAD         | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
digest           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
blob             | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
blob HEAD        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
range            | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
referrers        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
tags/list        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
named elsewhere  | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
also elsewhere   | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
warmed           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
joined           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
joined elsewhere | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
stale            | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 401 login-refused
stale digest     | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 401 login-refused
stale blob       | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 401 login-refused
`},
	{mode: "public", image: "private", ns: true, cells: `
                 | anonymous                    | A                            | B                            | revoked
tag              | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
tag HEAD         | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
digest           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
blob             | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
blob HEAD        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
range            | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
referrers        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
tags/list        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
named elsewhere  | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
also elsewhere   | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
warmed           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
joined           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
joined elsewhere | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
stale            | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 502 connect-refused
stale digest     | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 502 connect-refused
stale blob       | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 502 connect-refused
`},
	{mode: "public with credentials", image: "public", ns: false, cells: `
                 | anonymous              | A                      | B                      | revoked
tag              | 200 2 / 200 1          | 200 2 / 200 1          | 200 2 / 200 1          | 401 login-refused
tag HEAD         | 200 1                  | 200 1                  | 200 1                  | 401 login-refused
digest           | 200 1 / 200            | 200 1 / 200            | 200 1 / 200            | 401 login-refused
blob             | 200 2 / 200            | 200 2 / 200            | 200 2 / 200            | 401 login-refused
blob HEAD        | 200 1 / 200            | 200 1 / 200            | 200 1 / 200            | 401 login-refused
range            | 206 2 / 206            | 206 2 / 206            | 206 2 / 206            | 401 login-refused
referrers        | 200 1                  | 200 1                  | 200 1                  | 401 login-refused
tags/list        | 200 1                  | 200 1                  | 200 1                  | 401 login-refused
named elsewhere  | 404 digest-not-found 1 | 404 digest-not-found 1 | 404 digest-not-found 1 | 401 login-refused
also elsewhere   | 200 1                  | 200 1                  | 200 1                  | 401 login-refused
warmed           | 200 1                  | 200 1                  | 200 1                  | 401 login-refused
joined           | 200                    | 200                    | 200                    | 401 login-refused
joined elsewhere | 404 digest-not-found 1 | 404 digest-not-found 1 | 404 digest-not-found 1 | 401 login-refused
stale            | 200                    | 200                    | 200                    | 401 login-refused
stale digest     | 200                    | 200                    | 200                    | 401 login-refused
stale blob       | 200                    | 200                    | 200                    | 401 login-refused
`},
	{mode: "public with credentials", image: "public", ns: true, cells: `
                 | anonymous              | A                      | B                      | revoked
tag              | 200 2 / 200 1          | 200 2 / 200 1          | 200 2 / 200 1          | 200 2 / 200 1
tag HEAD         | 200 1                  | 200 1                  | 200 1                  | 200 1
digest           | 200 1 / 200            | 200 1 / 200            | 200 1 / 200            | 200 1 / 200
blob             | 200 2 / 200            | 200 2 / 200            | 200 2 / 200            | 200 2 / 200
blob HEAD        | 200 1 / 200            | 200 1 / 200            | 200 1 / 200            | 200 1 / 200
range            | 206 2 / 206            | 206 2 / 206            | 206 2 / 206            | 206 2 / 206
referrers        | 200 1                  | 200 1                  | 200 1                  | 200 1
tags/list        | 200 1                  | 200 1                  | 200 1                  | 200 1
named elsewhere  | 404 digest-not-found 1 | 404 digest-not-found 1 | 404 digest-not-found 1 | 404 digest-not-found 1
also elsewhere   | 200 1                  | 200 1                  | 200 1                  | 200 1
warmed           | 200 1                  | 200 1                  | 200 1                  | 200 1
joined           | 200                    | 200                    | 200                    | 200
joined elsewhere | 404 digest-not-found 1 | 404 digest-not-found 1 | 404 digest-not-found 1 | 404 digest-not-found 1
stale            | 200                    | 200                    | 200                    | 200
stale digest     | 200                    | 200                    | 200                    | 200
stale blob       | 200                    | 200                    | 200                    | 200
`},
	{mode: "public with credentials", image: "private", ns: false, cells: `
                 | anonymous                    | A                            | B                            | revoked
tag              | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
tag HEAD         | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
digest           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
blob             | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
blob HEAD        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
range            | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
referrers        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
tags/list        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
named elsewhere  | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
also elsewhere   | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
warmed           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
joined           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
joined elsewhere | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 401 login-refused
stale            | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 401 login-refused
stale digest     | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 401 login-refused
stale blob       | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 401 login-refused
`},
	{mode: "public with credentials", image: "private", ns: true, cells: `
                 | anonymous                    | A                            | B                            | revoked
tag              | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
tag HEAD         | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
digest           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
blob             | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
blob HEAD        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
range            | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
referrers        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
tags/list        | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
named elsewhere  | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
also elsewhere   | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
warmed           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
joined           | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
joined elsewhere | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~ | 403 not-found-or-no-access ~
stale            | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 502 connect-refused
stale digest     | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 502 connect-refused
stale blob       | 502 connect-refused          | 502 connect-refused          | 502 connect-refused          | 502 connect-refused
`},
	{mode: "rules", image: "private", ns: false, cells: `
                 | anonymous            | A                    | B                      | revoked           | no right left
tag              | 401 client-forbidden | 200 2 / 200 1        | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
tag HEAD         | 401 client-forbidden | 200 1                | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
digest           | 401 client-forbidden | 200 1 / 200          | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
blob             | 401 client-forbidden | 200 2 / 200          | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
blob HEAD        | 401 client-forbidden | 200 1 / 200          | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
range            | 401 client-forbidden | 206 2 / 206          | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
referrers        | 401 client-forbidden | 200 1                | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
tags/list        | 401 client-forbidden | 200 1                | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
named elsewhere  | 401 client-forbidden | 403 client-forbidden | 404 digest-not-found 1 | 401 login-refused | 403 client-forbidden
also elsewhere   | 401 client-forbidden | 403 client-forbidden | 200 1                  | 401 login-refused | 403 client-forbidden
warmed           | 401 client-forbidden | 200 1                | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
joined           | 401 client-forbidden | 200                  | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
joined elsewhere | 401 client-forbidden | 403 client-forbidden | 404 digest-not-found 1 | 401 login-refused | 403 client-forbidden
stale            | 401 client-forbidden | 200                  | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
stale digest     | 401 client-forbidden | 200                  | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
stale blob       | 401 client-forbidden | 200                  | 403 client-forbidden   | 401 login-refused | 403 client-forbidden
`},
	{mode: "rules", image: "private", ns: true, cells: `
                 | anonymous            | A                    | B                      | revoked              | no right left
tag              | 403 client-forbidden | 200 2 / 200 1        | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
tag HEAD         | 403 client-forbidden | 200 1                | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
digest           | 403 client-forbidden | 200 1 / 200          | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
blob             | 403 client-forbidden | 200 2 / 200          | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
blob HEAD        | 403 client-forbidden | 200 1 / 200          | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
range            | 403 client-forbidden | 206 2 / 206          | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
referrers        | 403 client-forbidden | 200 1                | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
tags/list        | 403 client-forbidden | 200 1                | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
named elsewhere  | 403 client-forbidden | 403 client-forbidden | 404 digest-not-found 1 | 403 client-forbidden | 403 client-forbidden
also elsewhere   | 403 client-forbidden | 403 client-forbidden | 200 1                  | 403 client-forbidden | 403 client-forbidden
warmed           | 403 client-forbidden | 200 1                | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
joined           | 403 client-forbidden | 200                  | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
joined elsewhere | 403 client-forbidden | 403 client-forbidden | 404 digest-not-found 1 | 403 client-forbidden | 403 client-forbidden
stale            | 403 client-forbidden | 200                  | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
stale digest     | 403 client-forbidden | 200                  | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
stale blob       | 403 client-forbidden | 200                  | 403 client-forbidden   | 403 client-forbidden | 403 client-forbidden
`},
	{mode: "client", image: "public", ns: false, cells: `
                 | anonymous                    | A                            | B                            | revoked                      | no right left
tag              | 200 2 / 200 1                | 200 2 / 200 1                | 200 2 / 200 1                | 200 2 / 200 1                | 200 2 / 200 1
tag HEAD         | 200 1                        | 200 1                        | 200 1                        | 200 1                        | 200 1
digest           | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200
blob             | 200 2 / 200                  | 200 2 / 200                  | 200 2 / 200                  | 200 2 / 200                  | 200 2 / 200
blob HEAD        | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200
range            | 206 2 / 206                  | 206 2 / 206                  | 206 2 / 206                  | 206 2 / 206                  | 206 2 / 206
referrers        | 200 1                        | 200 1                        | 200 1                        | 200 1                        | 200 1
tags/list        | 200 1                        | 200 1                        | 200 1                        | 200 1                        | 200 1
named elsewhere  | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200
also elsewhere   | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200
warmed           | 200 1                        | 200 1                        | 200 1                        | 200 1                        | 200 1
joined           | 200                          | 200                          | 200                          | 200                          | 200
joined elsewhere | 404 digest-not-found 1       | 404 digest-not-found 1       | 404 digest-not-found 1       | 404 digest-not-found 1       | 404 digest-not-found 1
stale            | 200                          | 200                          | 200                          | 200                          | 200
stale digest     | 200                          | 200                          | 200                          | 200                          | 200
stale blob       | 200                          | 200                          | 200                          | 200                          | 200
`},
	{mode: "client", image: "public", ns: true, cells: `
                 | anonymous                    | A                            | B                            | revoked                      | no right left
tag              | 200 2 / 200 1                | 200 2 / 200 1                | 200 2 / 200 1                | 200 2 / 200 1                | 200 2 / 200 1
tag HEAD         | 200 1                        | 200 1                        | 200 1                        | 200 1                        | 200 1
digest           | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200
blob             | 200 2 / 200                  | 200 2 / 200                  | 200 2 / 200                  | 200 2 / 200                  | 200 2 / 200
blob HEAD        | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200
range            | 206 2 / 206                  | 206 2 / 206                  | 206 2 / 206                  | 206 2 / 206                  | 206 2 / 206
referrers        | 200 1                        | 200 1                        | 200 1                        | 200 1                        | 200 1
tags/list        | 200 1                        | 200 1                        | 200 1                        | 200 1                        | 200 1
named elsewhere  | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200 | 404 digest-not-found 1 / 200
also elsewhere   | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200                  | 200 1 / 200
warmed           | 200 1                        | 200 1                        | 200 1                        | 200 1                        | 200 1
joined           | 200                          | 200                          | 200                          | 200                          | 200
joined elsewhere | 404 digest-not-found 1       | 404 digest-not-found 1       | 404 digest-not-found 1       | 404 digest-not-found 1       | 404 digest-not-found 1
stale            | 200                          | 200                          | 200                          | 200                          | 200
stale digest     | 200                          | 200                          | 200                          | 200                          | 200
stale blob       | 200                          | 200                          | 200                          | 200                          | 200
`},
	{mode: "client", image: "private", ns: false, cells: `
                 | anonymous                                             | A                                                       | B                                                       | revoked                                                 | no right left
tag              | 401 client-login-missing 2 / 401 client-login-missing | 200 5 / 200 2                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
tag HEAD         | 401 client-login-missing 2 / 401 client-login-missing | 200 4 / 200 2                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
digest           | 401 client-login-missing 1 / 401 client-login-missing | 200 3 / 200 1                                           | 403 client-login-refused ~                              | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~
blob             | 401 client-login-missing 2 / 401 client-login-missing | 200 4 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
blob HEAD        | 401 client-login-missing 2 / 401 client-login-missing | 200 3 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
range            | 401 client-login-missing 2 / 401 client-login-missing | 206 4 / 206 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
referrers        | 401 client-login-missing 1 / 401 client-login-missing | 200 2 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
tags/list        | 401 client-login-missing 1 / 401 client-login-missing | 200 2 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
named elsewhere  | 401 client-login-missing                              | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~                              | 403 client-login-refused ~                              | 403 client-login-refused ~ / 403 client-login-refused ~
also elsewhere   | 401 client-login-missing                              | 403 client-login-refused ~ / 403 client-login-refused ~ | 200 2 / 200 1                                           | 403 client-login-refused ~                              | 403 client-login-refused ~ / 403 client-login-refused ~
warmed           | 401 client-login-missing ~                            | 200 ~                                                   | 403 client-login-refused ~                              | 403 client-login-refused ~                              | 403 client-login-refused ~
joined           | 401 client-login-missing                              | 200 1                                                   | 403 client-login-refused ~                              | 403 client-login-refused ~                              | 403 client-login-refused ~
joined elsewhere | 401 client-login-missing                              | 403 client-login-refused ~                              | 403 client-login-refused ~                              | 403 client-login-refused ~                              | 403 client-login-refused ~
stale            | 401 client-login-missing                              | 502 connect-refused                                     | 502 connect-refused                                     | 403 client-login-refused                                | 502 connect-refused
stale digest     | 401 client-login-missing                              | 502 connect-refused                                     | 502 connect-refused                                     | 403 client-login-refused                                | 502 connect-refused
stale blob       | 401 client-login-missing                              | 502 connect-refused                                     | 502 connect-refused                                     | 403 client-login-refused                                | 502 connect-refused
`},
	{mode: "client", image: "private", ns: true, cells: `
                 | anonymous                                             | A                                                       | B                                                       | revoked                                                 | no right left
tag              | 401 client-login-missing 2 / 401 client-login-missing | 200 5 / 200 2                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
tag HEAD         | 401 client-login-missing 2 / 401 client-login-missing | 200 4 / 200 2                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
digest           | 401 client-login-missing 1 / 401 client-login-missing | 200 3 / 200 1                                           | 403 client-login-refused ~                              | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~
blob             | 401 client-login-missing 2 / 401 client-login-missing | 200 4 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
blob HEAD        | 401 client-login-missing 2 / 401 client-login-missing | 200 3 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
range            | 401 client-login-missing 2 / 401 client-login-missing | 206 4 / 206 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
referrers        | 401 client-login-missing 1 / 401 client-login-missing | 200 2 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
tags/list        | 401 client-login-missing 1 / 401 client-login-missing | 200 2 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 403 client-login-refused ~
named elsewhere  | 401 client-login-missing                              | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~                              | 403 client-login-refused ~                              | 403 client-login-refused ~ / 403 client-login-refused ~
also elsewhere   | 401 client-login-missing                              | 403 client-login-refused ~ / 403 client-login-refused ~ | 200 2 / 200 1                                           | 403 client-login-refused ~                              | 403 client-login-refused ~ / 403 client-login-refused ~
warmed           | 401 client-login-missing ~                            | 200 ~                                                   | 403 client-login-refused ~                              | 403 client-login-refused ~                              | 403 client-login-refused ~
joined           | 401 client-login-missing                              | 200 1                                                   | 403 client-login-refused ~                              | 403 client-login-refused ~                              | 403 client-login-refused ~
joined elsewhere | 401 client-login-missing                              | 403 client-login-refused ~                              | 403 client-login-refused ~                              | 403 client-login-refused ~                              | 403 client-login-refused ~
stale            | 401 client-login-missing                              | 502 connect-refused                                     | 502 connect-refused                                     | 403 client-login-refused                                | 502 connect-refused
stale digest     | 401 client-login-missing                              | 502 connect-refused                                     | 502 connect-refused                                     | 403 client-login-refused                                | 502 connect-refused
stale blob       | 401 client-login-missing                              | 502 connect-refused                                     | 502 connect-refused                                     | 403 client-login-refused                                | 502 connect-refused
`},
	{mode: "client, remembered", image: "private", ns: true, cells: `
                 | anonymous                                             | A                                                       | B                                                       | revoked                            | no right left
tag              | 401 client-login-missing 2 / 401 client-login-missing | 200 5 / 200 2                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 200 1 | 403 client-login-refused ~ / 200 1
tag HEAD         | 401 client-login-missing 2 / 401 client-login-missing | 200 4 / 200 2                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 200 1 | 403 client-login-refused ~ / 200 1
digest           | 401 client-login-missing 1 / 401 client-login-missing | 200 3 / 200 1                                           | 403 client-login-refused ~                              | 403 client-login-refused ~ / 200   | 403 client-login-refused ~ / 200
blob             | 401 client-login-missing 2 / 401 client-login-missing | 200 4 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 200   | 403 client-login-refused ~ / 200
blob HEAD        | 401 client-login-missing 2 / 401 client-login-missing | 200 3 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 200   | 403 client-login-refused ~ / 200
range            | 401 client-login-missing 2 / 401 client-login-missing | 206 4 / 206 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 206   | 403 client-login-refused ~ / 206
referrers        | 401 client-login-missing 1 / 401 client-login-missing | 200 2 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 200 1 | 403 client-login-refused ~ / 200 1
tags/list        | 401 client-login-missing 1 / 401 client-login-missing | 200 2 / 200 1                                           | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~ / 200 1 | 403 client-login-refused ~ / 200 1
named elsewhere  | 401 client-login-missing                              | 403 client-login-refused ~ / 403 client-login-refused ~ | 403 client-login-refused ~                              | 403 client-login-refused ~         | 403 client-login-refused ~ / 403 client-login-refused ~
also elsewhere   | 401 client-login-missing                              | 403 client-login-refused ~ / 403 client-login-refused ~ | 200 2 / 200 1                                           | 403 client-login-refused ~         | 403 client-login-refused ~ / 403 client-login-refused ~
warmed           | 401 client-login-missing ~                            | 200 ~                                                   | 403 client-login-refused ~                              | 403 client-login-refused ~         | 403 client-login-refused ~
joined           | 401 client-login-missing                              | 200 1                                                   | 403 client-login-refused ~                              | 200                                | 200
joined elsewhere | 401 client-login-missing                              | 403 client-login-refused ~                              | 403 client-login-refused ~                              | 403 client-login-refused ~         | 403 client-login-refused ~
stale            | 401 client-login-missing                              | 502 connect-refused                                     | 502 connect-refused                                     | 200                                | 200
stale digest     | 401 client-login-missing                              | 502 connect-refused                                     | 502 connect-refused                                     | 200                                | 200
stale blob       | 401 client-login-missing                              | 502 connect-refused                                     | 502 connect-refused                                     | 200                                | 200
`},
}
