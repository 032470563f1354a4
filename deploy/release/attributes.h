/* Where does an attribute lie? Compiled code asks the class each time; here each place in the code remembers what it was
   told, as Python's own interpreter does for what it runs (PEP 659).

   compiled.py puts this before the functions of a module that Cython has made; what it redefines holds for them. Keeps for
   each place the last class for which the answer cannot change: by its version, which Python takes from a class (and
   those derived from it) that is changed, and never gives to another one. Only members and properties of C and methods of
   instances without a `__dict__` are remembered; whatever is not, is asked for as before, errors included. */

#include <structmember.h>

#ifndef Py_GIL_DISABLED /* two threads may not be here at once */

typedef struct {
    unsigned int version; /* 0: of no class */
    getter get;           /* NULL: it lies at `offset` */
    void *closure;
    Py_ssize_t offset;
} Attribute;

typedef struct {
    unsigned int version;
    PyObject *function; /* not ours: its class has it, as long as it has that version */
} Method;

static Py_NO_INLINE PyObject *attribute_found(PyObject *object, PyObject *name, Attribute *known) {
    PyObject *value = PyObject_GetAttr(object, name);
    PyTypeObject *type = Py_TYPE(object);
    if (value == NULL || type->tp_getattro != PyObject_GenericGetAttr) {
        return value;
    }
    PyObject *found = _PyType_Lookup(type, name);
    if (found == NULL || type->tp_version_tag == 0) {
        return value;
    }
    /* It gave a value: it is for objects of this class. */
    if (Py_IS_TYPE(found, &PyMemberDescr_Type)) {
        PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        if (member->type == T_OBJECT_EX && (member->flags & ~READONLY) == 0) {
            known->get = NULL;
            known->offset = member->offset;
            known->version = type->tp_version_tag;
        }
    } else if (Py_IS_TYPE(found, &PyGetSetDescr_Type)) {
        PyGetSetDef *property = ((PyGetSetDescrObject *)found)->d_getset;
        if (property->get != NULL) {
            known->get = property->get;
            known->closure = property->closure;
            known->version = type->tp_version_tag;
        }
    }
    return value;
}

static inline PyObject *attribute_of(PyObject *object, PyObject *name, Attribute *known) {
    if (likely(known->version != 0 && Py_TYPE(object)->tp_version_tag == known->version)) {
        if (known->get != NULL) {
            return known->get(object, known->closure);
        }
        PyObject *value = *(PyObject **)((char *)object + known->offset);
        if (likely(value != NULL)) { /* NULL: it was never set, or is not any more */
            return Py_NewRef(value);
        }
    }
    return attribute_found(object, name, known);
}

/* `arguments` begin with the object whose method it is. */
static Py_NO_INLINE PyObject *method_found(
    PyObject *name, PyObject *const *arguments, size_t count, Method *known) {
    PyTypeObject *type = Py_TYPE(arguments[0]);
    if (type->tp_getattro == PyObject_GenericGetAttr && type->tp_dictoffset == 0) {
        PyObject *found = _PyType_Lookup(type, name);
        if (found != NULL && type->tp_version_tag != 0 &&
            PyType_HasFeature(Py_TYPE(found), Py_TPFLAGS_METHOD_DESCRIPTOR)) {
            known->function = found;
            known->version = type->tp_version_tag;
        }
    }
    return PyObject_VectorcallMethod(name, arguments, count, NULL);
}

static inline PyObject *method_called(
    PyObject *name, PyObject *const *arguments, size_t count, Method *known) {
    if (likely(known->version != 0 && Py_TYPE(arguments[0])->tp_version_tag == known->version)) {
        PyObject *function = Py_NewRef(known->function); /* it may change its own class */
        size_t all = count & ~(size_t)PY_VECTORCALL_ARGUMENTS_OFFSET; /* what lies before them is not its own */
        PyObject *result = PyObject_Vectorcall(function, arguments, all, NULL);
        Py_DECREF(function);
        return result;
    }
    return method_found(name, arguments, count, known);
}

#undef __Pyx_PyObject_GetAttrStr
#undef __Pyx_PyObject_FastCallMethod
#define __Pyx_PyObject_GetAttrStr(object, name) \
    ({ static Attribute known_; attribute_of((PyObject *)(object), (name), &known_); })
#define __Pyx_PyObject_FastCallMethod(name, arguments, count) \
    ({ static Method known_; method_called((name), (arguments), (count), &known_); })

#endif
