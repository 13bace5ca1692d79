"""`tollgate demo traffic`: what customers of a gateway do in an hour, sent to a local stack in a minute."""
