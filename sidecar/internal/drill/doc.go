// Package drill runs a PostgreSQL server on a data directory that is thrown away afterwards: nobody but this machine's
// same user reaches it, it starts no background job, talks to no other server, and archives nothing. What is asked of it is
// asked by others.
package drill
