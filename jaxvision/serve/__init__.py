"""A page on this machine that shows what a trained network sees.

`server` loads the network and answers on an address with a random token; `guard` is
what every request passes; `app` has the routes; `session` computes what they answer,
one thing at a time by `worker`; `survey` looks once at all images of the data set;
`review` holds what a person says of their labels. `page` is what the browser gets.
"""
