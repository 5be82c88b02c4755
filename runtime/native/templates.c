/* The library of products and convolutions: see templates.h. */
#define NNC_TEMPLATES
#define TEMPLATE
#include "templates.h"

#include "convolutions.h"
#include "products.h"
